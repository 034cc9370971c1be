"""The exception of this package."""


class FaceDetectionError(Exception):
    """What is wrong with a detector or its weights, and what to do, in one line for the user."""
