"""Changes to the plugins folder: one at a time, each visible as a whole or not at all.

`puna.plugins.installed` describes the layout.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from puna.installer.errors import PluginInstallError
from puna.plugins.installed import ENVIRONMENTS, IN_USE, links

LOCK: Final = ".lock"


class PluginsFolder:
    """The plugins folder, locked for a change. Made by `changing`."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.lock = lock
        """The descriptor of the lock. The installer's programs inherit it: if this process is killed, the next change
        waits for them too."""

    @contextmanager
    def new_environment(self) -> Iterator[Path]:
        """Make the folder of an environment. It is removed again unless `publish` has made it a plugin's."""
        folder = self.path / ENVIRONMENTS / secrets.token_hex(8)
        folder.mkdir(parents=True)
        (folder / IN_USE).touch()
        try:
            yield folder
        finally:
            self.sweep()

    def publish(self, name: str, environment: Path) -> None:
        """Make an environment the one of a plugin. Its former environment stays while hosts run from it."""
        # A link cannot be made over another one, and a rename can.
        made = self.path / ENVIRONMENTS / f"{environment.name}.link"
        made.symlink_to(Path(ENVIRONMENTS) / environment.name)
        target = self.path / name
        if target.exists() and not target.is_symlink():
            made.unlink()
            raise PluginInstallError(f"{target} is in the way: it was not made by puna plugin install")
        made.replace(target)

    def withdraw(self, name: str) -> None:
        """Remove a plugin. Its environment stays while hosts run from it."""
        (self.path / name).unlink()
        self.sweep()

    def sweep(self) -> None:
        """Remove the environments that no plugin has and no host runs from."""
        used = {link.readlink().name for link in links(self.path)}
        for each in (self.path / ENVIRONMENTS).iterdir():
            if each.is_symlink():
                each.unlink()
            elif each.name not in used:
                _remove_unless_in_use(each)


@contextmanager
def changing(path: Path) -> Iterator[PluginsFolder]:
    """Lock the plugins folder for a change, and remove what an interrupted one left. Waits for other changes."""
    path.mkdir(parents=True, exist_ok=True)
    (path / ENVIRONMENTS).mkdir(exist_ok=True)
    lock = os.open(path / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = PluginsFolder(path, lock)
        folder.sweep()
        yield folder
    finally:
        os.close(lock)


def _remove_unless_in_use(environment: Path) -> None:
    try:
        descriptor = os.open(environment / IN_USE, os.O_RDONLY)
    except FileNotFoundError:
        # The folder was just made, or an earlier removal did not finish.
        shutil.rmtree(environment, ignore_errors=True)
        return
    try:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(environment, ignore_errors=True)
    finally:
        os.close(descriptor)
