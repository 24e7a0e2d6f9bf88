"""An unfinished download of a blob: the bytes that have arrived, and notes about its parts. All calls block.

The files are Ollama's, so either server goes on where the other stopped:

    sha256-<hex>-partial      the blob's bytes, at full length from the beginning
    sha256-<hex>-partial-<N>  part N: {"N":0,"Offset":0,"Size":510784,"Completed":0}

One process at a time writes: it holds a lock on the first file. (Ollama knows no locks.)
"""

import contextlib
import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, Final

from puna.atomic_files import sync_folder
from puna.models.registry import parts as parts_
from puna.models.registry.failures import of_system
from puna.models.registry.parts import Part
from puna.models.storage import durable
from puna.models.storage.blobs import TEMPORARY_PREFIX, touch_if_present

_CHUNK: Final = 1 << 20
_UNLOCKABLE: Final = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


class PartialBlob:
    """The files of one unfinished blob. Disk errors become TransferErrors that name the file and the cause."""

    def __init__(self, final: Path) -> None:
        """`final` is the path of the complete blob."""
        self.final = final
        self.path = final.with_name(final.name + "-partial")
        self._file: BinaryIO | None = None

    def lock(self) -> bool:
        """Open the file and lock it. Return False if another process holds the lock."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, durable.FILE_MODE)
        except OSError as error:
            raise of_system(error, "open", self.path) from error
        file = open(descriptor, "r+b", buffering=0)  # noqa: PTH123, SIM115 - a descriptor; closed below or by close()
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        except OSError as error:
            if error.errno not in _UNLOCKABLE:
                file.close()
                raise of_system(error, "lock", self.path) from error
        if not self._is_current(file):  # the previous holder completed or removed it in between
            file.close()
            return False
        self._file = file
        return True

    def _is_current(self, file: BinaryIO | None) -> bool:
        try:
            return file is not None and os.path.samestat(os.fstat(file.fileno()), self.path.stat())
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Close and unlock the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def _descriptor(self) -> int:
        assert self._file is not None
        return self._file.fileno()

    def parts(self) -> tuple[Part, ...]:
        """Return the parts from the notes; empty if there are none or they do not cover the blob."""
        found = []
        for path in self._notes():
            try:
                found.append(parts_.loads(path.read_bytes()))
            except (OSError, ValueError):
                return ()
        # One missing or damaged note makes all of them useless: no other note says which bytes it counted.
        return parts_.whole(found)

    def _notes(self) -> list[Path]:
        return list(self.path.parent.glob(f"{self.path.name}-*"))

    def resume(self) -> tuple[Part, ...]:
        """Return the parts to resume with; empty if the download must start from the beginning."""
        found = self.parts()
        if found and os.fstat(self._descriptor).st_size != parts_.total(found):
            found = parts_.emptied(found)  # the bytes that the notes count are gone
            self._size(parts_.total(found))
        return found

    def begin(self, parts: Iterable[Part]) -> None:
        """Extend the file to the size of the blob, and write the notes of its parts."""
        planned = tuple(parts)
        # Old notes are removed first, so that a kill in between leaves no notes about another division into parts.
        self._forget()
        self._size(parts_.total(planned))
        self.note(planned)

    def _size(self, size: int) -> None:
        try:
            os.ftruncate(self._descriptor, size)
        except OSError as error:
            raise of_system(error, "truncate", self.path) from error

    def check_room(self, size: int) -> None:
        """Raise TransferError if `size` more bytes would fill the disk."""
        try:
            durable.check_room(self.path.parent, size)
        except OSError as error:
            raise of_system(error, "write", self.path) from error

    def note(self, parts: Iterable[Part]) -> None:
        """Write the notes of parts."""
        for part in parts:
            target = self.path.with_name(f"{self.path.name}-{part.number}")
            try:
                # A note is replaced as a whole but not flushed: a crash may lose it, and then older bytes are fetched
                # again.
                with durable.temporary(target.parent, TEMPORARY_PREFIX) as (path, file):
                    file.write(parts_.dumps(part))
                    file.flush()
                    path.replace(target)
            except OSError as error:
                raise of_system(error, "write", target) from error

    def write(self, data: bytes, offset: int) -> None:
        """Write bytes of the blob."""
        view = memoryview(data)
        try:
            while view:
                count = os.pwrite(self._descriptor, view, offset)
                # pwrite may write less than it was given, for instance near a full disk.
                view, offset = view[count:], offset + count
        except OSError as error:
            raise of_system(error, "write", self.path) from error

    def sync(self) -> None:
        """Flush the bytes to the disk."""
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise of_system(error, "sync", self.path) from error

    def touch(self) -> None:
        """Set the times of all files to now, so that no server prunes them."""
        for path in (self.path, *self._notes()):
            touch_if_present(path)

    def digest(self, stopped: Callable[[], bool]) -> str:
        """Return the digest of the bytes. Once `stopped()` is true the result has no meaning."""
        found = hashlib.sha256()
        offset = 0
        try:
            while not stopped() and (chunk := os.pread(self._descriptor, _CHUNK, offset)):
                found.update(chunk)
                offset += len(chunk)
        except OSError as error:
            raise of_system(error, "read", self.path) from error
        return f"sha256:{found.hexdigest()}"

    def publish(self) -> None:
        """Rename the file to the blob, durably. The notes are removed afterwards, so that a kill in between loses
        nothing."""
        try:
            os.fsync(self._descriptor)
            os.fchmod(self._descriptor, durable.FILE_MODE)
            if not self._is_current(self._file):  # Ollama, which takes no locks, has pruned it
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            self.path.replace(self.final)
            sync_folder(self.final.parent)
        except OSError as error:
            raise of_system(error, "rename", self.path) from error
        self._forget()

    def discard(self) -> None:
        """Remove the file and all notes."""
        self._forget()
        self.path.unlink(missing_ok=True)

    def _forget(self) -> None:
        for path in self._notes():
            with contextlib.suppress(OSError):
                path.unlink()
