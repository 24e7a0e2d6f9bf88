"""Temporary folders that are removed even if their process is killed.

The process that makes a folder locks it (flock) for as long as it lives; the lock ends with the process, however that
ends. A marker file in the folder shows that it is Puna's. `sweep`, which each start calls, removes marked folders that
are not locked. Cleaners such as systemd-tmpfiles leave locked folders alone.
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
"""Name of the marker file."""


class Scratch:
    """A temporary folder that only its owner may enter. Leaving its context removes it."""

    def __init__(self, parent: Path | None = None, prefix: str = PREFIX) -> None:
        """Make the folder in `parent`, or in the system's folder for temporary files. Raises OSError."""
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
        """Path of the folder. A folder that was removed is made anew, under another name. Raises OSError."""
        if not self._is_there():
            self._remove()
            self._make()
        return self._path

    def _is_there(self) -> bool:
        """Return whether the path still leads to the folder that was made, and not to another of its name."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat(follow_symlinks=False))
        except OSError:
            return False

    def _make(self) -> None:
        self._path = Path(tempfile.mkdtemp(prefix=self._prefix, dir=self._parent))  # mode 0700
        process_exit.PATHS.add(str(self._path))
        # A flock belongs to the open file, so the descriptor stays open for as long as the folder is in use.
        self._descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (self._path / MARK).touch()
        except OSError:
            # Without a lock there must be no marker: `sweep` would remove the folder of a living process.
            return

    def _remove(self) -> None:
        # A cleaner may have removed the folder and another process may have made one of the same name.
        if self._is_there():
            shutil.rmtree(self._path, ignore_errors=True)
        process_exit.PATHS.discard(str(self._path))
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def sweep(parent: Path, prefix: str = PREFIX) -> None:
    """Remove the folders of dead processes of the same user in `parent`. Raises nothing."""
    try:
        names = [each.name for each in os.scandir(parent) if each.name.startswith(prefix)]
    except OSError:
        return
    for name in names:
        _sweep_one(parent / name)


def _sweep_one(path: Path) -> None:
    try:
        # The parent is often /tmp, where anybody can place links and folders of this prefix. O_NOFOLLOW, the owner and
        # the marker, all checked on the open folder, keep other programs' files from being removed.
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return  # not a folder, or not readable by this user
    try:
        if os.fstat(descriptor).st_uid == os.geteuid():
            os.stat(MARK, dir_fd=descriptor, follow_symlinks=False)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
    except OSError:
        return  # there is no marker, or the process lives
    finally:
        os.close(descriptor)
