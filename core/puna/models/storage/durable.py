"""Files that are there whole or not at all, also after a crash."""

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from puna.process import exit as process_exit

FILE_MODE: Final = 0o644
_LEFT_FREE: Final = 64 << 20
"""Bytes of the disk that stay free, unless that is more than _LEFT_PART of the disk."""
_LEFT_PART: Final = 0.05


def check_room(folder: Path, size: int) -> None:
    """Raise OSError where so many more bytes from outside would fill the disk."""
    disk = shutil.disk_usage(folder)
    if size > disk.free - min(_LEFT_FREE, disk.total * _LEFT_PART):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextlib.contextmanager
def temporary(folder: Path, prefix: str) -> Iterator[tuple[Path, BinaryIO]]:
    """Open a new file of its own name in `folder`, which is made if need be; remove it at the end if still there.

    It is locked meanwhile, which says to whoever prunes, in whatever process, that somebody is writing it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=prefix, dir=folder)
    path = Path(name)
    process_exit.PATHS.add(name)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
            os.fchmod(descriptor, FILE_MODE)
            with contextlib.suppress(OSError):  # not every file system has locks
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield path, file
    finally:
        path.unlink(missing_ok=True)
        process_exit.PATHS.discard(name)


def settle(file: BinaryIO, path: Path, target: Path) -> None:
    """Bring an open temporary file to the disk and put it in the place of `target`, at once and for good."""
    file.flush()
    os.fsync(file.fileno())
    path.replace(target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
