"""The folder of stored sequences, which several models and processes share.

    ROOT/lock                   locked while files are created, renamed or removed for room
    ROOT/PARTITION/NAME.kv      a complete file; it is never changed
    ROOT/PARTITION/NAME.new     a file that is being written; its writer holds a lock on it

A file becomes visible by a rename, so a process that is killed while it writes leaves nothing but its own `.new` file.
The kernel drops the lock of that file with the process, and the next writer removes it. Space is reserved when a file
is created, so all processes together keep the limit. The files that were used least recently make room; each use sets
the time of the file. Readers take no lock: a file that is removed while it is open stays readable.

Files are not flushed to the disk. After a power failure a file may have holes, which its checksum shows.
"""

import fcntl
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import BinaryIO, Final

SUFFIX: Final = ".kv"
_UNFINISHED: Final = ".new"
_KEPT_FREE_BYTES: Final = 1 << 30
"""Bytes of the disk that are left to others."""
_LOCK_SECONDS: Final = 2.0
"""How long to wait for the lock of the folder, which is held for milliseconds."""


class NoRoomError(Exception):
    """The file does not fit, or the folder is locked for long."""


class CacheFolder:
    """A folder of stored sequences, with a limit on its bytes."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        """Create the folder if there is none. Raises OSError if it cannot be used, or if others could write into it."""
        self._root, self._max_bytes = root, max_bytes
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = root.stat()
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022:
            raise PermissionError(f"{root} belongs to another account, or others may write into it")
        with self._lock_file():
            pass

    def list_names(self, partition: str) -> set[str]:
        """Return the names of the complete files of a partition, without the suffix."""
        try:
            with os.scandir(self._root / partition) as entries:
                return {each.name.removesuffix(SUFFIX) for each in entries if each.name.endswith(SUFFIX)}
        except OSError:
            return set()

    def open(self, partition: str, name: str) -> FileIO:
        """Open a file for reading, unbuffered. Raises OSError, for instance if another process has removed it."""
        return FileIO(self._path(partition, name))

    def touch(self, partition: str, name: str) -> None:
        """Note that a file was used now."""
        with suppress(OSError):
            os.utime(self._path(partition, name))

    def remove(self, partition: str, name: str) -> None:
        """Remove a file, if it is still there."""
        with suppress(OSError):
            self._path(partition, name).unlink()

    @contextmanager
    def create(self, partition: str, name: str, size: int) -> Iterator[BinaryIO]:
        """Yield a new file of this size, which becomes visible if the block succeeds.

        Raises NoRoomError, and OSError. Nothing is left of a file whose block fails.
        """
        folder = self._root / partition
        unfinished = folder / f"{name}{_UNFINISHED}"
        with self._locked():
            self._make_room(size)
            folder.mkdir(mode=0o700, exist_ok=True)
            file = _create(unfinished)
        try:
            with file:
                _reserve(file, size)
                yield file
                file.flush()
                # Renamed before the lock of the file goes with its closing, so that nobody takes it for a dead one.
                unfinished.rename(self._path(partition, name))
        except BaseException:
            with suppress(OSError):
                unfinished.unlink()
            raise

    def _path(self, partition: str, name: str) -> Path:
        return self._root / partition / f"{name}{SUFFIX}"

    def _make_room(self, size: int) -> None:
        """Remove what processes left that were killed, and the files that were used least recently, until one fits."""
        files = []
        total = 0
        for entry in self._entries():
            with suppress(OSError):  # a reader may have dropped it
                if entry.name.endswith(SUFFIX):
                    found = entry.stat(follow_symlinks=False)
                    files.append((found.st_mtime_ns, found.st_size, entry.path))
                    total += found.st_size
                elif entry.name.endswith(_UNFINISHED) and not _remove_if_abandoned(Path(entry.path)):
                    total += entry.stat(follow_symlinks=False).st_size
        room = min(self._max_bytes - total, shutil.disk_usage(self._root).free - _KEPT_FREE_BYTES)
        # Decided before anything is removed: a file that fits nowhere must not cost the others.
        if size > room + sum(each for _, each, _ in files):
            raise NoRoomError(f"a file of {size} bytes does not fit")
        for _, freed, name in sorted(files):
            if size <= room:
                break
            path = Path(name)
            path.unlink(missing_ok=True)
            room += freed
            with suppress(OSError):  # other files are left in it
                path.parent.rmdir()

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        """Yield the entries of all partitions. Ten times as fast as `Path.glob`, and there may be thousands."""
        with os.scandir(self._root) as partitions:
            for partition in partitions:
                if partition.is_dir(follow_symlinks=False):
                    with suppress(OSError), os.scandir(partition) as entries:
                        yield from entries

    def _lock_file(self) -> BinaryIO:
        return os.fdopen(os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock_file() as file:
            _retry_lock(lambda: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB))
            yield


def _retry_lock(attempt: Callable[[], None]) -> None:
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            attempt()
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise NoRoomError("the folder is locked") from None
            time.sleep(0.005)
        else:
            return


def _create(path: Path) -> BinaryIO:
    """Create a file and lock it. Raises FileExistsError if another process is writing the same sequence."""
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "r+b")
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return file


def _reserve(file: BinaryIO, size: int) -> None:
    """Take the space at once, so that other processes see it, and a full disk shows before anything is written."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)


def _remove_if_abandoned(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
