"""The exception of this package."""

from puna.errors import PunaError


class PluginInstallError(PunaError):
    """A plugin cannot be installed, removed or written. Only commands raise it, never the server."""
