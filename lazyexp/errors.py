"""The one exception that users are meant to see."""


class UserError(Exception):
    """An error that the user can fix: shown as one line, without a traceback, with exit code 2."""
