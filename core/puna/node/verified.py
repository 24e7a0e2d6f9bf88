"""Records of files whose digest was verified, so that a large file is read once and not at each load.

A record has the `stat` of a file at the moment when its digest was computed. Every write to a file changes its ctime,
and a replaced file has another inode, so a file whose `stat` equals its record has not been written to since. A record
that is missing or damaged costs one reading of the file. The time of the record's own file says when the file was last
used, for the times of a file itself belong to its `stat`.
"""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final

from puna import atomic_files
from puna.models.storage.stat_fingerprints import StatFingerprint

CHUNK: Final = 1 << 20
"""Bytes that are read and hashed at once."""


class VerifiedFiles:
    """The records in a folder, one for each digest. Every method blocks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._here: dict[str, dict[str, object]] = {}
        """The records of this process, for a folder that cannot be written."""

    def has(self, name: str, path: Path) -> bool:
        """Return whether the file at a path was verified to have a digest. `name` is the digest's file name."""
        try:
            state = _state(path)
            return self._here.get(name) == state or bool(json.loads((self._folder / name).read_bytes()) == state)
        except (OSError, ValueError):
            return False

    def add(self, name: str, path: Path) -> None:
        """Record that a file has a digest. A record that cannot be written holds for this process."""
        with suppress(OSError):
            state = self._here[name] = _state(path)
            atomic_files.write(self._folder / name, json.dumps(state).encode())

    def remove(self, name: str) -> None:
        """Remove a record."""
        self._here.pop(name, None)
        with suppress(OSError):
            (self._folder / name).unlink()

    def touch(self, name: str) -> None:
        """Note that the file is used now."""
        with suppress(OSError):
            os.utime(self._folder / name)

    def used_at(self, name: str) -> float:
        """Return when the file was last used, in seconds since 1970; 0 if there is no record."""
        try:
            return (self._folder / name).stat().st_mtime
        except OSError:
            return 0.0


def hash_into(
    hasher: "hashlib._Hash", path: Path, stopped: Callable[[], bool], on_bytes: Callable[[int], None]
) -> None:
    """Hash a file up to its end or until `stopped()`. `on_bytes` is called with each number of bytes. Blocks."""
    buffer = memoryview(bytearray(CHUNK))
    with path.open("rb", buffering=0) as file:
        while not stopped() and (count := file.readinto(buffer)):
            hasher.update(buffer[:count])
            on_bytes(count)


def _state(path: Path) -> dict[str, object]:
    return asdict(StatFingerprint.of(path, origin=str(path)))
