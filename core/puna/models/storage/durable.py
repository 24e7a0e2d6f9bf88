"""Atomic and durable writes: a file is there as a whole or not at all, also after a crash.

A file is written under a temporary name in the target's folder and flushed to the disk (fsync). Then it is renamed over
the target, which is atomic, and the folder is flushed, so that the rename survives a loss of power. A manifest is
written after its blobs have gone through these steps, so that it never names a blob that a crash lost.

While a temporary file is open it is locked (flock). Pruning removes temporary files that are an hour old and not
locked: those whose writer died.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from puna.atomic_files import sync_folder
from puna.process import exit as process_exit

FILE_MODE: Final = 0o644
_LEFT_FREE: Final = 64 << 20
"""Bytes of the disk that uploads and downloads leave free. On small disks _LEFT_PART of the disk is less and counts."""
_LEFT_PART: Final = 0.05


def check_room(folder: Path, size: int) -> None:
    """Raise OSError (ENOSPC) if `size` more bytes would fill the disk of `folder`."""
    disk = shutil.disk_usage(folder)
    if size > disk.free - min(_LEFT_FREE, disk.total * _LEFT_PART):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextlib.contextmanager
def temporary(folder: Path, prefix: str) -> Iterator[tuple[Path, BinaryIO]]:
    """Open a new file with a random name in `folder`, and remove it at the end unless it was renamed.

    The folder is created if needed. The file is locked while it is open, so that no process prunes it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=prefix, dir=folder)
    path = Path(name)
    # A process that is asked to end removes these files on its way out.
    process_exit.PATHS.add(name)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
            # mkstemp makes files that only their owner can read. Other users' servers may share a store.
            os.fchmod(descriptor, FILE_MODE)
            with contextlib.suppress(OSError):  # not every file system has locks
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield path, file
    finally:
        path.unlink(missing_ok=True)
        process_exit.PATHS.discard(name)


def replace_atomically(file: BinaryIO, path: Path, target: Path) -> None:
    """Flush an open temporary file to the disk and rename it to `target`, which it replaces."""
    file.flush()
    # Flushed before the rename: otherwise a crash could leave the new name with an empty file.
    os.fsync(file.fileno())
    path.replace(target)
    sync_folder(target.parent)
