"""The one exception that users are meant to see."""


class UserError(Exception):
    """Something the user can mend; shown as one line, without a traceback, with exit code 2."""
