"""A page in the browser, which runs the commands as processes."""
