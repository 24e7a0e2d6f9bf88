"""Locks on blobs that other processes see: one byte of a lock file for each digest.

The store is shared by threads, by several servers and by commands such as `puna doctor`. A writer that is about to name
a blob in a manifest holds a shared lock on the blob's byte, from before it checks that the blob exists until the
manifest is written. A remover needs an exclusive lock on that byte, and asks which blobs are in use after it has it. So
a blob never disappears between the writer's check and its manifest. Nothing waits longer than a removal takes, and a
remover that does not get the lock leaves the blob alone.

The locks belong to the open file (Linux's OFD locks), not to the process. Two stores in one process therefore exclude
each other, and the kernel releases the locks of a process that dies. Ollama takes no locks; only the rule that blobs
younger than an hour are not pruned protects against it. Where a file system has no locks, nothing is protected.
"""

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

_FLOCK: Final = struct.Struct("hhqqi4x")
_HEXADECIMALS: Final = 15
"""Digits of a digest that make its byte's offset: as many as fit in 63 bits. Two digests that share a byte share a
lock, which at worst delays a removal."""


class ByteLocks:
    """An open lock file. Closing it releases all its locks."""

    def __init__(self, path: Path) -> None:
        """Open the file, and create it if needed. In a read-only folder there are no locks, and nothing to remove."""
        self._descriptor: int | None = None
        with contextlib.suppress(OSError):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def lock_shared(self, file_name: str) -> None:
        """Lock a blob's byte together with other users. Wait for a removal that has it locked exclusively."""
        with contextlib.suppress(OSError):
            self._lock(fcntl.F_OFD_SETLKW, fcntl.F_RDLCK, file_name)

    def lock_exclusive(self, file_name: str) -> bool:
        """Lock a blob's byte exclusively without waiting. Return False if another user holds it."""
        try:
            self._lock(fcntl.F_OFD_SETLK, fcntl.F_WRLCK, file_name)
        except OSError as error:
            # Any other error means that the file system has no locks. The removal then goes on, as with Ollama's store.
            return error.errno not in (errno.EAGAIN, errno.EACCES)
        return True

    def _lock(self, command: int, kind: int, file_name: str) -> None:
        if self._descriptor is not None:
            # A lock beyond the end of a file is allowed, so the lock file stays empty.
            start = int(file_name.rpartition("-")[2][:_HEXADECIMALS], 16)
            fcntl.fcntl(self._descriptor, command, _FLOCK.pack(kind, os.SEEK_SET, start, 1, 0))

    def close(self) -> None:
        """Release all locks."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@contextlib.contextmanager
def hold_exclusive_locks(path: Path, file_names: Iterable[str]) -> Iterator[list[str]]:
    """Lock exclusively all blobs that are not in use, and yield their names."""
    locked = ByteLocks(path)
    try:
        yield [name for name in file_names if locked.lock_exclusive(name)]
    finally:
        locked.close()


@contextlib.contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Try to lock a whole file exclusively, and yield whether it worked.

    Writers of temporary files and downloads hold such a lock, so False means that a file is being written.
    """
    with contextlib.ExitStack() as stack:
        try:
            fcntl.flock(stack.enter_context(path.open("rb")), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:  # the file is gone, or the file system has no locks
            pass
        yield True
