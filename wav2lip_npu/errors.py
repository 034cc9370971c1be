"""The one exception that is meant to be read by a user."""


class UserError(Exception):
    """What is wrong, where, and what to do, in one line.

    The command line prints it without a traceback and exits with code 2.
    """
