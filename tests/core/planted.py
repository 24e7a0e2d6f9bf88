"""Files of every kind that a newer version of Puna might have written, and the bytes of whole folders."""

import json
from pathlib import Path

from puna.plugins.installed import ENVIRONMENTS, InstalledPlugin

NEWER = 2
PLUGIN = "puna-echo"


def contents(folder):
    """Return path, kind, mode and bytes of everything below a folder."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        status = path.lstat()
        data = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(folder))] = (oct(status.st_mode), data)
    return found


def change(path, **fields):
    """Change fields of a JSON object in a file."""
    path.write_text(json.dumps(json.loads(path.read_bytes()) | fields))


def mark(path):
    """Write the marker of a newer version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"version": NEWER, "since": "some day"}))


def install_plugin(folder):
    """Make what `puna plugin install` leaves behind, without the environment itself; return the record's path."""
    environment = folder / ENVIRONMENTS / "5f0c2a9d"
    environment.mkdir(parents=True)
    InstalledPlugin(folder=environment, distribution=PLUGIN, version="1.0", spec=PLUGIN, backends=("echo",)).write()
    (folder / PLUGIN).symlink_to(Path(ENVIRONMENTS) / environment.name)
    return environment / "plugin.json"
