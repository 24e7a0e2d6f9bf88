"""Clearing the store at start: old blobs that no manifest names, and empty folders."""

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
    """Whether a file, or a link, has not been touched for an hour. `used` is when it was used, if that says more."""
    try:
        return max(path.lstat().st_mtime, used) <= time.time() - YOUNG_SECONDS
    except FileNotFoundError:
        return False  # another process was faster


def prune_unfinished(folder: Path, prefix: str = "") -> None:
    """Remove what writers left an hour ago or earlier: files without a digest's name that nobody has locked."""
    if not folder.is_dir():
        return
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False) or is_digest(entry.name) or not entry.name.startswith(prefix):
            continue
        path = Path(entry.path)
        try:
            if is_old(path):
                with locks.unlocked(written(path)) as free:
                    if free and is_old(path):
                        path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("cannot remove %s: %s", path, error)


def written(path: Path) -> Path:
    """Return the file that whoever writes this one has locked: for the notes of a download, that is its bytes."""
    blob, partial, _ = path.name.partition("-partial")
    return path.with_name(blob + partial)


def remove_empty_folders(folder: Path) -> bool:
    """Remove a folder if there are no files anywhere below it; whether it is gone."""
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return True  # there is none, or another process was faster
    left = False
    for entry in entries:
        if not entry.is_dir(follow_symlinks=False) or not remove_empty_folders(Path(entry.path)):
            left = True
    if left:
        return False
    try:
        folder.rmdir()
    except OSError:
        return False  # somebody has put something there meanwhile
    return True
