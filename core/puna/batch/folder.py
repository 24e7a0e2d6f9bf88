"""The folder of batches and files: its lock, and the atomic creation and removal of what it holds.

Each batch and each file is a folder of its own, named by its id. It is prepared under a name that begins with a dot and
then renamed, so that it exists as a whole or not at all. It is removed by the same way back. What a process that died
has left under such a name is removed when the folder is opened.
"""

import errno
import fcntl
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from puna import atomic_files
from puna.atomic_files import sync_folder
from puna.formats import batches_marker

_PREPARED: Final = "."


class Folder:
    """The folder, which one server uses at a time. It is created when something is first stored in it."""

    def __init__(self, root: Path | None, load: Callable[[], None] = lambda: None) -> None:
        """`root` is None if the server has no such folder; every use then raises OSError.

        `load` reads what is in the folder. It is called once the folder is locked.
        """
        self._root = root
        self._load = load
        self._lock: BinaryIO | None = None
        self._opening = threading.RLock()

    def check(self) -> None:
        """Open the folder if there is one, and raise what `open` raises."""
        if self._lock is None and (self._root is None or self._root.exists()):
            self.open()

    def open(self) -> Path:
        """Return the folder, created if needed and locked.

        OSError: it cannot be used, a newer version of Puna wrote it (NewerFormatError), or another server uses it.
        """
        if self._root is None:
            raise OSError(errno.ENOTSUP, "this server has no folder for batches and files")
        with self._opening:
            if self._lock is None:
                marker = batches_marker(self._root)
                # Before the lock, which creates a file.
                marker.check()
                self._lock = _locked(self._root)
                try:
                    # Again, since a newer version may have had the lock meanwhile.
                    marker.write()
                    self._load()
                except BaseException:
                    self.close()
                    raise
        return self._root

    def close(self) -> None:
        """Unlock the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _locked(root: Path) -> BinaryIO:
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.fdopen(os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o600), "wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        text = "another server uses the folder of batches; PUNA_BATCHES chooses another one"
        raise OSError(errno.EBUSY, text, str(root)) from None
    return lock


class Preparation:
    """The folder of a batch or file that does not exist yet."""

    def __init__(self, parent: Path, name: str) -> None:
        """Create the folder."""
        self._parent = parent
        self._name = name
        self.folder = parent / f"{_PREPARED}{name}"
        parent.mkdir(exist_ok=True, mode=0o700)
        self.folder.mkdir(mode=0o700)

    def create(self, name: str) -> BinaryIO:
        """Create a file in the folder, for its owner alone."""
        return os.fdopen(os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")

    def publish(self) -> Path:
        """Make the folder exist under its name, also after a loss of power. Its files must have been flushed."""
        sync_folder(self.folder)
        target = self._parent / self._name
        self.folder.rename(target)
        sync_folder(self._parent)
        return target

    def discard(self) -> None:
        """Remove what has been prepared."""
        shutil.rmtree(self.folder, ignore_errors=True)


def flush(file: BinaryIO) -> None:
    """Flush an open file to the disk."""
    file.flush()
    os.fsync(file.fileno())


def remove(folder: Path) -> None:
    """Remove the folder of a batch or file atomically. Does nothing if there is none."""
    leaving = folder.with_name(f"{_PREPARED}{folder.name}")
    try:
        folder.rename(leaving)
    except FileNotFoundError:
        return
    sync_folder(folder.parent)
    shutil.rmtree(leaving, ignore_errors=True)


def published(parent: Path) -> Iterator[Path]:
    """Yield the folders of all batches or files, and remove what was never published or not removed to the end."""
    if not parent.exists():
        return
    for each in sorted(parent.iterdir()):
        if each.name.startswith(_PREPARED):
            shutil.rmtree(each, ignore_errors=True)
        elif each.is_dir():
            yield each


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Replace a file by one with these values, atomically and durably."""
    atomic_files.write(path, json.dumps(values).encode())
