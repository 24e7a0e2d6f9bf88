"""The exception of commands."""

from puna.errors import PunaError


class CommandError(PunaError):
    """A command failed. The text is for the user."""
