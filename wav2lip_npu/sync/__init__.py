"""The command ``sync``: how far sound and lips are apart in each clip, and what mends it."""
