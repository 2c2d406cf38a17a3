"""Errors that a user can act on."""


class InputError(ValueError):
    """Logs, files or configuration are not usable: the message names what, where, and the fix.

    The message is one line, since the CLI shows exactly that line.
    """
