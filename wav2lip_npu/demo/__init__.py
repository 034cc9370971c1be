"""A small synthetic talking-head data set, made from installed packages alone."""
