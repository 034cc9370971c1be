"""The training loop and its three tasks."""
