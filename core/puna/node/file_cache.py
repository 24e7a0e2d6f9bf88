"""The cache of a node: files of models under their digests, within a limit.

Theory. The folder has three parts. `files` has complete files, whose digests were verified as they arrived. `partial`
has files that are arriving or whose transfer broke off; the name has the size that the file will have, which counts as
taken from the start. `verified` has the records of `verified.py`.

Several nodes may share the folder, and any of them may be killed. So all state is in the folder, and everything that
must end with a process is a lock on an open file (flock), which the kernel releases. A file in use has a shared lock,
and a file that is arriving an exclusive one. Room is made under the lock of the whole folder: files without a lock are
removed, the one that was used longest ago first. A process that has opened a file and waits for its lock may find that
the file was removed meanwhile; it compares inodes and tries again.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import platformdirs

from puna.atomic_files import sync_folder
from puna.node.verified import VerifiedFiles, hash_into

LEFT_FREE: Final = 64 << 20
"""Bytes of the disk that the cache leaves free. On small disks LEFT_PART of the disk is less and counts."""
LEFT_PART: Final = 0.05


def default_cache() -> Path:
    """Return the folder of the cache if no setting names one."""
    return platformdirs.user_cache_path("puna", appauthor=False) / "node"


class CacheFullError(Exception):
    """There is no room for a file, whatever is removed."""


@dataclass(slots=True)
class HeldFile:
    """A verified file that is in use."""

    path: Path
    descriptor: int | None = None
    """The open file that has the lock; None: the file is not in the cache."""

    def release(self) -> None:
        """End the use."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


class PartialFile:
    """A file that is arriving. It is locked until `close`. Every method blocks."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """Take over an open file with its lock."""
        self.path = path
        self.size = os.fstat(descriptor).st_size
        """Bytes that have arrived."""
        self._descriptor = descriptor
        self._hasher = hashlib.sha256()
        os.lseek(descriptor, 0, os.SEEK_END)

    def read(self, stopped: Callable[[], bool], on_bytes: Callable[[int], None]) -> None:
        """Hash what an earlier transfer has left."""
        hash_into(self._hasher, self.path, stopped, on_bytes)

    def write(self, chunks: Sequence[memoryview]) -> None:
        """Append data, which `hash` takes too. Raises OSError."""
        for chunk in chunks:
            left = chunk
            while left:
                count = os.write(self._descriptor, left)
                self.size += count
                left = left[count:]

    def hash(self, chunks: Sequence[memoryview]) -> None:
        """Hash the data that `write` takes. May run at the same time."""
        for chunk in chunks:
            self._hasher.update(chunk)

    def digest(self) -> str:
        """Return the digest of what has arrived, in hexadecimal digits."""
        return self._hasher.hexdigest()

    def flush(self) -> None:
        """Flush the file to the disk."""
        os.fsync(self._descriptor)

    def publish(self, path: Path) -> HeldFile:
        """Move the complete file to `path`, and hold it. The lock of the folder must be held."""
        self.path.replace(path)
        sync_folder(path.parent)
        # Nobody removes the file between the two kinds of lock, for that needs the lock of the folder.
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        return HeldFile(path, self._descriptor)

    def remove(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Unlock the file. What has arrived stays for a later transfer."""
        os.close(self._descriptor)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file of the cache, as it counts towards the limit."""

    path: Path
    size: int
    """Its size, or the size that it will have."""
    present: int
    """Bytes that are there."""
    used_at: float


class FileCache:
    """The files of a folder, which is made when it is first used. Every method blocks and may raise OSError."""

    def __init__(self, folder: Path, limit_bytes: float) -> None:
        """`limit_bytes` bounds the size of all files together."""
        self.folder = folder
        self._limit = limit_bytes
        self._files, self._partial = folder / "files", folder / "partial"
        self.verified = VerifiedFiles(folder / "verified")

    def prepare(self) -> None:
        """Make the folder. Only its owner can read it."""
        for each in (self.folder, self._files, self._partial, self.folder / "verified"):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)

    def find(self, name: str) -> HeldFile | None:
        """Hold a file, which may not be verified; return None if it is not there. `name` is its digest's file name."""
        path = self._files / name
        descriptor = _locked(path, os.O_RDONLY, fcntl.LOCK_SH)
        if descriptor is None:
            return None
        self.verified.touch(name)
        return HeldFile(path, descriptor)

    def arriving(self, name: str, size: int) -> int | None:
        """Return how much of a file has arrived that another transfer brings; None if there is no such transfer."""
        path = self._partial_path(name, size)
        try:
            present = path.stat().st_size
            descriptor = _locked(path, os.O_RDONLY, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return present
        except FileNotFoundError:
            return None
        if descriptor is not None:
            os.close(descriptor)
        return None

    def receive(self, name: str, size: int) -> PartialFile | None:
        """Begin to receive a file, or go on where an earlier transfer ended. Room is made first.

        Return None if another process receives it, or has just done so. Raises CacheFullError.
        """
        path = self._partial_path(name, size)
        with self._folder_locked():
            if (self._files / name).exists():
                return None
            try:
                descriptor = _locked(path, os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            assert descriptor is not None
            try:
                if os.fstat(descriptor).st_size > size:
                    os.ftruncate(descriptor, 0)
                self._make_room(path, size, os.fstat(descriptor).st_size)
            except BaseException as error:
                if isinstance(error, CacheFullError):
                    path.unlink(missing_ok=True)
                os.close(descriptor)
                raise
            return PartialFile(path, descriptor)

    def complete(self, partial: PartialFile, name: str) -> HeldFile:
        """Add a file that has arrived and was verified, and hold it."""
        partial.flush()  # before the lock, for it may take long
        with self._folder_locked():
            held = partial.publish(self._files / name)
        self.verified.add(name, held.path)
        return held

    def remove(self, name: str) -> None:
        """Remove a damaged file, even if it is in use. A process that has opened the file can go on reading it."""
        (self._files / name).unlink(missing_ok=True)
        self.verified.remove(name)

    def _partial_path(self, name: str, size: int) -> Path:
        return self._partial / f"{name}.{size}"

    @contextmanager
    def _folder_locked(self) -> Iterator[None]:
        self.prepare()
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _make_room(self, path: Path, size: int, present: int) -> None:
        """Remove files until another one fits within the limit and on the disk."""
        if size > self._limit:
            raise CacheFullError(self._why_full(size, []))
        others = sorted((each for each in self._entries() if each.path != path), key=lambda each: each.used_at)
        while self._lacks_room(others, size, present):
            removed = next((each for each in others if _remove_unused(each.path)), None)
            if removed is None:
                raise CacheFullError(self._why_full(size, others))
            self.verified.remove(removed.path.name)
            others.remove(removed)

    def _lacks_room(self, others: list[_Entry], size: int, present: int) -> bool:
        if sum(each.size for each in others) + size > self._limit:
            return True
        disk = shutil.disk_usage(self.folder)
        coming = size - present + sum(each.size - each.present for each in others)
        return coming > disk.free - min(LEFT_FREE, disk.total * LEFT_PART)

    def _why_full(self, size: int, others: list[_Entry]) -> str:
        used = sum(each.size for each in others)
        if used + size > self._limit:
            text = (
                f"of the {self._limit:,} bytes of the cache, files in use take {used:,}; --cache-bytes sets the limit"
            )
        else:
            text = f"the disk of {self.folder} has {shutil.disk_usage(self.folder).free:,} bytes left"
        return f"there is no room for a file of {size:,} bytes: {text}"

    def _entries(self) -> Iterator[_Entry]:
        """Yield the files of the cache, except those that other processes remove meanwhile."""
        for folder in (self._files, self._partial):
            for path in folder.iterdir():
                with suppress(OSError, ValueError):
                    status = path.stat()
                    size = int(path.suffix[1:]) if folder == self._partial else status.st_size
                    used_at = max(status.st_mtime, self.verified.used_at(path.name))
                    yield _Entry(path, size, status.st_size, used_at)


def _locked(path: Path, flags: int, lock: int) -> int | None:
    """Open a file and lock it; return None if there is none. Raises BlockingIOError if the lock is not free."""
    while True:
        try:
            descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            fcntl.flock(descriptor, lock)
            # Another process may have removed or moved the file while this one waited.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _remove_unused(path: Path) -> bool:
    """Remove a file unless a process uses it; return whether it is gone."""
    try:
        descriptor = _locked(path, os.O_RDONLY, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    if descriptor is not None:
        path.unlink(missing_ok=True)
        os.close(descriptor)
    return True
