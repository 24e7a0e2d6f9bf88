"""The installed backends, as their manifests describe them. Nothing here imports or runs a plugin.

A manifest (`manifest`) is a TOML file that says what a backend serves, how its host process is started and which
options it takes (`option`). `discovery` finds the manifests of Python distributions and of folders; `registry` lists
them, leaves out those with a fault, and chooses the backend of a model.
"""

from puna.plugins.manifest import Capabilities, Host, Manifest, ManifestError, read
from puna.plugins.plugin import Plugin
from puna.plugins.registry import Registry

__all__ = ["Capabilities", "Host", "Manifest", "ManifestError", "Plugin", "Registry", "read"]
