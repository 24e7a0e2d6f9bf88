"""Holding blobs so that other processes see it: a lock on one byte of a file for each digest.

Whoever is about to name blobs in a manifest shares their bytes; whoever removes blobs must have their bytes alone.
These are locks of the open file (Linux's OFD locks), so two stores in one process exclude each other too, and a process
that dies lets go. Where files cannot be locked, nobody is kept from anything.
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
"""How much of a digest makes its byte's number: as much as fits. Two digests of one byte would only be kept longer."""


class LockedBytes:
    """An opened lock file. Closing it lets go of everything."""

    def __init__(self, path: Path) -> None:
        """Open the file, made if need be; a folder that cannot be written has no locks, and nothing to protect."""
        self._descriptor: int | None = None
        with contextlib.suppress(OSError):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def share(self, file_name: str) -> None:
        """Keep others from having this blob alone; waits the moment that somebody does."""
        with contextlib.suppress(OSError):
            self._lock(fcntl.F_OFD_SETLKW, fcntl.F_RDLCK, file_name)

    def seize(self, file_name: str) -> bool:
        """Have this blob alone, if nobody else holds it; whether that worked."""
        try:
            self._lock(fcntl.F_OFD_SETLK, fcntl.F_WRLCK, file_name)
        except OSError as error:
            return error.errno not in (errno.EAGAIN, errno.EACCES)
        return True

    def _lock(self, command: int, kind: int, file_name: str) -> None:
        if self._descriptor is not None:
            start = int(file_name.rpartition("-")[2][:_HEXADECIMALS], 16)
            fcntl.fcntl(self._descriptor, command, _FLOCK.pack(kind, os.SEEK_SET, start, 1, 0))

    def close(self) -> None:
        """Let go of everything."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@contextlib.contextmanager
def seized(path: Path, file_names: Iterable[str]) -> Iterator[list[str]]:
    """Have those blobs alone that nobody holds; gives their names."""
    locked = LockedBytes(path)
    try:
        yield [name for name in file_names if locked.seize(name)]
    finally:
        locked.close()


@contextlib.contextmanager
def unlocked(path: Path) -> Iterator[bool]:
    """Say whether nobody holds a lock on a whole file, as writers of temporary files and downloads do.

    If nobody does, nobody can while this lasts.
    """
    with contextlib.ExitStack() as stack:
        try:
            fcntl.flock(stack.enter_context(path.open("rb")), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:  # it is gone, or files cannot be locked here
            pass
        yield True
