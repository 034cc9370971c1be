"""How fast loading and preprocessing are, beside the original and a plain baseline."""
