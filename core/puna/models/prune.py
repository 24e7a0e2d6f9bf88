"""Clearing the store at start: old blobs that no manifest names, and empty folders."""

import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from puna.models.digest import file_name, is_digest

log = logging.getLogger(__name__)

YOUNG_SECONDS: Final = 3600.0


def rename_legacy(folder: Path) -> None:
    """Rename blobs called `sha256:<hex>`, as very old servers wrote them."""
    if not folder.is_dir():
        return
    for path in folder.glob("sha256:*"):
        if is_digest(path.name):
            path.replace(folder / file_name(path.name))


def prune_blobs(folder: Path, used: Iterable[str], claimed: Iterable[str]) -> None:
    """Remove files that nobody uses and that have not been touched for an hour, unfinished ones included."""
    if not folder.is_dir():
        return
    kept = {file_name(digest) for digest in used if is_digest(digest)} | set(claimed)
    limit = time.time() - YOUNG_SECONDS
    for entry in os.scandir(folder):
        if not entry.is_file(follow_symlinks=False) or entry.name in kept:
            continue
        try:
            if entry.stat().st_mtime <= limit:
                Path(entry.path).unlink()
        except FileNotFoundError:
            continue  # another process was faster
        except OSError as error:
            log.warning("cannot remove %s: %s", entry.path, error)


def prune_temporaries(folder: Path, prefix: str) -> None:
    """Remove manifests that a crash left half written an hour ago or earlier."""
    limit = time.time() - YOUNG_SECONDS
    for path in folder.glob(prefix + "*"):
        try:
            if path.is_file() and path.stat().st_mtime <= limit:
                path.unlink()
        except FileNotFoundError:
            continue


def remove_empty_folders(folder: Path) -> bool:
    """Remove a folder if there are no files anywhere below it; whether it is gone."""
    if not folder.is_dir():
        return True
    left = False
    for entry in os.scandir(folder):
        if not entry.is_dir(follow_symlinks=False) or not remove_empty_folders(Path(entry.path)):
            left = True
    if left:
        return False
    try:
        folder.rmdir()
    except OSError:
        return False  # somebody has put something there meanwhile
    return True
