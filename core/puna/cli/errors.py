"""What commands raise."""

from puna.errors import PunaError


class CommandError(PunaError):
    """A command failed; the text says why."""
