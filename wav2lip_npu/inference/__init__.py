"""A trained generator at work: videos, programs, export."""
