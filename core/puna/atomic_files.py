"""Atomic and durable replacement of small files that their owner alone may read."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PRIVATE_MODE: Final = 0o600


def write(path: Path, data: bytes, mode: int = PRIVATE_MODE) -> None:
    """Replace a file. After a crash it has its old content or the new one. Raises OSError."""
    with _written(path, data, mode) as made:
        made.replace(path)
    sync_folder(path.parent)


def create(path: Path, data: bytes, mode: int = PRIVATE_MODE) -> None:
    """Create a file that does not exist yet; no process ever sees a part of it. Raises FileExistsError and OSError."""
    with _written(path, data, mode) as made:
        try:
            # Unlike a rename, a link fails if another process was faster.
            path.hardlink_to(made)
        except FileExistsError:
            raise
        except OSError:  # the file system has no hard links
            if os.path.lexists(path):
                raise FileExistsError(path) from None
            made.replace(path)
    sync_folder(path.parent)


@contextlib.contextmanager
def _written(path: Path, data: bytes, mode: int) -> Iterator[Path]:
    """Write a temporary file beside a file, flush it to the disk, and remove it at the end unless it was renamed."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    made = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield made
    finally:
        made.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush the entries of a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
