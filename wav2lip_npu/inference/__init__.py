"""A trained generator at work: videos and programs."""
