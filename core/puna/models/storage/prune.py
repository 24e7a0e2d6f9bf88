"""Removing leftovers from a store: unfinished files of writers that died, and empty folders.

Ollama prunes by the same rule of one hour, so each server leaves alone what the other has just written.
"""

import logging
import os
import time
from pathlib import Path
from typing import Final

from puna.models.storage import locks
from puna.models.storage.digest import file_name, is_digest

log = logging.getLogger(__name__)

YOUNG_SECONDS: Final = 3600.0


def rename_legacy(folder: Path) -> None:
    """Rename blobs called `sha256:<hex>`, as very old servers wrote them."""
    if not folder.is_dir():
        return
    for path in folder.glob("sha256:*"):
        if is_digest(path.name):
            path.replace(folder / file_name(path.name))


def is_old(path: Path, used: float = 0.0) -> bool:
    """Return whether a file or link has not been changed for an hour. `used` is the time of its last use, if known."""
    try:
        return max(path.lstat().st_mtime, used) <= time.time() - YOUNG_SECONDS
    except FileNotFoundError:
        return False  # another process was faster


def prune_unfinished(folder: Path, prefix: str = "") -> None:
    """Remove unfinished files that are an hour old and that no writer has locked."""
    if not folder.is_dir():
        return
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False) or is_digest(entry.name) or not entry.name.startswith(prefix):
            continue
        path = Path(entry.path)
        try:
            if is_old(path):
                with locks.try_lock(locked_file(path)) as free:
                    # The age is asked again under the lock: a writer may have resumed the file in between.
                    if free and is_old(path):
                        path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("cannot remove %s: %s", path, error)


def locked_file(path: Path) -> Path:
    """Return the file that the writer of `path` has locked. The notes of a download are covered by the lock on its
    bytes.
    """
    blob, partial, _ = path.name.partition("-partial")
    return path.with_name(blob + partial)


def remove_empty_folders(folder: Path) -> bool:
    """Remove a folder if it has no files at any depth. Return whether it is gone."""
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return True  # it does not exist, or another process was faster
    left = False
    for entry in entries:
        # Every entry is visited even if one is left, since folders beside it may be empty.
        if not entry.is_dir(follow_symlinks=False) or not remove_empty_folders(Path(entry.path)):
            left = True
    if left:
        return False
    try:
        folder.rmdir()
    except OSError:
        return False  # another process has put a file there
    return True
