"""The exception of this package that is meant to be read by a user."""


class FaceDetectionError(Exception):
    """What is wrong with a detector or its weights and what to do, in one line."""
