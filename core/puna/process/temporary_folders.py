"""Temporary folders that outlive no process.

A folder is locked (flock) by the process that made it for as long as the process lives, however it ends. Cleaners such
as systemd-tmpfiles leave a locked folder alone. A file in the folder marks it as ours, so that `sweep` can remove the
folders of dead processes without a look at anything else.
"""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from puna.process import exit as process_exit

PREFIX: Final = "puna-"
MARK: Final = ".puna-scratch"
"""The file that marks a folder."""


class Scratch:
    """A temporary folder that only its owner may enter. Leaving its context removes it."""

    def __init__(self, parent: Path | None = None, prefix: str = PREFIX) -> None:
        """Make the folder in `parent`, or where temporary files go. Raises OSError."""
        self._parent = parent or Path(tempfile.gettempdir())
        self._prefix = prefix
        self._descriptor = -1
        self._make()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._remove()

    @property
    def path(self) -> Path:
        """The folder. If it was removed, another one is made first. Raises OSError."""
        if not self._is_there():
            self._remove()
            self._make()
        return self._path

    def _is_there(self) -> bool:
        """Tell whether the folder that was made is still there, and not another of its name."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat(follow_symlinks=False))
        except OSError:
            return False

    def _make(self) -> None:
        self._path = Path(tempfile.mkdtemp(prefix=self._prefix, dir=self._parent))  # mode 0700
        process_exit.PATHS.add(str(self._path))
        self._descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (self._path / MARK).touch()
        except OSError:
            return  # a folder that cannot be locked gets no mark: sweep would take it for a dead process's

    def _remove(self) -> None:
        if self._is_there():
            shutil.rmtree(self._path, ignore_errors=True)
        process_exit.PATHS.discard(str(self._path))
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def sweep(parent: Path, prefix: str = PREFIX) -> None:
    """Remove the folders that dead processes of the same user have left in `parent`. Raises nothing."""
    try:
        names = [each.name for each in os.scandir(parent) if each.name.startswith(prefix)]
    except OSError:
        return
    for name in names:
        _sweep_one(parent / name)


def _sweep_one(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return  # no folder, or not ours
    try:
        if os.fstat(descriptor).st_uid == os.geteuid():
            os.stat(MARK, dir_fd=descriptor, follow_symlinks=False)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
    except OSError:
        return  # it has no mark, or its owner lives
    finally:
        os.close(descriptor)
