"""Errors that a user can act on, and those that may pass by themselves."""


class InputError(ValueError):
    """Logs, files or configuration are not usable: the message names what, where, and the fix.

    The message is one line, since the CLI shows exactly that line.
    """


class TransientError(OSError):
    """A store or a runner did not do its part: the same may go well in a minute, and a step tries it again."""
