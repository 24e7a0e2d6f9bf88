"""Blobs: files named by the SHA-256 of their content.

A blob is written under a temporary name and renamed when it is complete (see `durable`), so a file that has a digest's
name has that content. A creation, a copy, a pull or an import holds shared locks on the blobs that it is about to name
in a manifest (see `locks`). `SharedLocks` counts them inside the process as well, since threads share one `BlobStore`.
"""

import contextlib
import hashlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from puna import formats
from puna.errors import BlobNotFoundError, DigestMismatchError
from puna.go.json import quote
from puna.models.storage import durable
from puna.models.storage.digest import file_name, is_digest, plain
from puna.models.storage.locks import ByteLocks, hold_exclusive_locks
from puna.models.storage.stat_fingerprints import SMALL, FileState, StatFingerprints

_CHUNK: Final = 1 << 20
PRIVATE: Final = ".puna"
"""The folder beside the blobs with Puna's own files: locks and stat fingerprints."""
TEMPORARY_PREFIX: Final = "sha256-"  # as Ollama's, so that either server prunes it


@dataclass(frozen=True, slots=True)
class Blob:
    """A stored blob."""

    digest: str
    size: int
    created: bool
    """Whether the blob is new."""


class BlobWriter:
    """A blob that is being written. It computes the digest on the way."""

    def __init__(self, path: Path, file: BinaryIO, blobs: "BlobStore") -> None:
        self._path = path
        self._file = file
        self._blobs = blobs
        self._hash = hashlib.sha256()
        self._size = 0

    def write(self, chunk: bytes) -> None:
        """Append bytes."""
        self._file.write(chunk)
        self._hash.update(chunk)
        self._size += len(chunk)

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._size

    def commit(self, expected: str | None = None, *, keep: bool = False) -> Blob:
        """Store what was written. Raises DigestMismatchError, and stores nothing, if the digest is not `expected`.

        With `keep`, bytes with another digest are stored under their true digest first, as Ollama does, so that a
        client that corrects the digest need not send them again. No manifest names the blob, so a later start prunes
        it.
        """
        digest = f"sha256:{self._hash.hexdigest()}"
        wrong = expected is not None and expected != digest
        if wrong and not keep:
            raise _mismatch(expected or "", digest)
        created = self._blobs.store_written(self._file, self._path, digest)
        if wrong:
            raise _mismatch(expected or "", digest)
        return Blob(digest, self._size, created=created)


class SharedLocks:
    """The shared locks that one operation holds."""

    def __init__(self, lock: threading.RLock, counter: Counter[str], locked: ByteLocks) -> None:
        self._lock = lock
        self._counter = counter
        self._locked = locked
        self._held: list[str] = []

    def add(self, digest: str) -> None:
        """Lock a digest, whether or not the blob exists. Only a check after this call is reliable."""
        with self._lock:
            self._counter[file_name(digest)] += 1
            # Threads of this process see the counter, other processes see the byte locks.
            self._held.append(file_name(digest))
        self._locked.lock_shared(file_name(digest))

    def release(self) -> None:
        """Release all locks."""
        # Closing the file releases all byte locks at once.
        self._locked.close()
        with self._lock:
            self._counter.subtract(self._held)
            self._counter += Counter()  # drops the digests with a count of zero
            self._held.clear()


class BlobStore:
    """The folder of blobs. Every call may block; all may be made from several threads at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stat_fingerprints = StatFingerprints(folder.parent / PRIVATE / "seals", self.check_format)
        self._locks = folder.parent / PRIVATE / "lock"
        self._marker = formats.store_marker(folder.parent)
        self._lock = threading.RLock()
        self._shared: Counter[str] = Counter()

    def path(self, digest: str) -> Path:
        """Return the path of a blob, which need not exist. Raises InvalidDigestError."""
        return self.folder / file_name(digest)

    def has(self, digest: str) -> bool:
        """Return whether the blob exists. Raises InvalidDigestError."""
        return self.path(digest).is_file()

    def size(self, digest: str) -> int:
        """Return the blob's size in bytes. Raises InvalidDigestError and BlobNotFoundError."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            # The client may have written either separator.
            raise BlobNotFoundError(f"blob {quote(digest)} not found", digest=plain(digest)) from None

    def files(self) -> list[Path]:
        """Return the paths of all blobs, broken links included."""
        try:
            return sorted(Path(entry.path) for entry in os.scandir(self.folder) if _is_blob(entry))
        except FileNotFoundError:
            return []

    def check_format(self) -> None:
        """Raise NewerFormatError if a newer version of Puna wrote the store, and OSError if its marker is damaged."""
        self._marker.check()

    @contextlib.contextmanager
    def writer(self) -> Iterator[BlobWriter]:
        """Write a blob in chunks. Without a commit nothing is left behind. Raises what `check_format` raises."""
        self.check_format()
        with durable.temporary(self.folder, TEMPORARY_PREFIX) as (path, file):
            yield BlobWriter(path, file, self)

    def add(self, data: bytes, shared_locks: SharedLocks | None = None) -> Blob:
        """Store bytes as a blob, locked before it appears."""
        if shared_locks is not None:
            shared_locks.add(digest_of(data))
        with self.writer() as writer:
            writer.write(data)
            return writer.commit()

    def adopt(self, path: Path, shared_locks: SharedLocks | None = None) -> Blob:
        """Turn a temporary file of this folder into a blob.

        With `shared_locks`, the blob is locked before it appears. If a sound blob of this digest exists, the file stays
        where it is.
        """
        with path.open("rb+") as file:
            digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
            if shared_locks is not None:
                shared_locks.add(digest)
            size = file.seek(0, os.SEEK_END)
            return Blob(digest, size, created=self.store_written(file, path, digest))

    def store_written(self, file: BinaryIO, path: Path, digest: str) -> bool:
        """Rename a complete temporary file to its digest. Return whether the blob is new.

        A blob that exists and may be damaged is replaced. Raises what `check_format` raises.
        """
        # Again, since the file may have taken hours to write.
        self.check_format()
        target = self.path(digest)
        # Touched before it is checked, so that no other server prunes the blob in between.
        is_there = self._touch(target)
        if is_there and self._is_sound(target, digest):
            return False
        durable.replace_atomically(file, path, target)
        self.mark_verified(digest)
        return not is_there

    def _is_sound(self, path: Path, digest: str) -> bool:
        """Return whether a blob is right by its fingerprint, or is small and has the right digest."""
        if self.stat_fingerprints.state(path) is FileState.UNCHANGED:
            return True
        return path.stat().st_size < SMALL and digest_of(path.read_bytes()) == digest

    def mark_verified(self, digest: str) -> None:
        """Store the fingerprint of a blob of the store's own whose digest was just verified."""
        # A fingerprint of an earlier file may name an origin that the new file does not have.
        self.stat_fingerprints.remove(self.path(digest))
        self.stat_fingerprints.renew(self.path(digest))

    @contextlib.contextmanager
    def temporary(self) -> Iterator[Path]:
        """Create an empty temporary file beside the blobs. It is removed at the end unless it is adopted.

        Raises what `check_format` raises.
        """
        self.check_format()
        with durable.temporary(self.folder, TEMPORARY_PREFIX) as (path, _):
            yield path

    def touch(self, digest: str) -> None:
        """Set the blob's time to now, so that no server prunes it within the hour. A missing blob is ignored."""
        self._touch(self.path(digest))

    def _touch(self, path: Path) -> bool:
        """Set a blob's time to now and renew its fingerprint. Return whether the blob exists.

        The times of files outside the store are not changed.
        """
        if self.stat_fingerprints.touch(path):
            return path.is_file()
        try:
            # Setting the time changes the fingerprint's ctime. It is renewed only if the blob was unchanged before, so
            # that a change is not hidden.
            intact = self.stat_fingerprints.state(path) is FileState.UNCHANGED
        except OSError:
            return False
        if not touch_if_present(path):
            return False
        if intact:
            self.stat_fingerprints.renew(path)
        return True

    @contextlib.contextmanager
    def hold_shared_locks(self) -> Iterator[SharedLocks]:
        """Yield shared locks that are released at the end. Raises what `check_format` raises."""
        self.check_format()
        # A store may be read-only.
        with contextlib.suppress(OSError):
            self._locks.parent.mkdir(parents=True, exist_ok=True)
            self._marker.write()
        shared_locks = SharedLocks(self._lock, self._shared, ByteLocks(self._locks))
        try:
            yield shared_locks
        finally:
            shared_locks.release()

    def remove(
        self,
        digests: Iterable[str],
        used: Callable[[], frozenset[str]],
        still: Callable[[Path], bool] = os.path.lexists,
    ) -> None:
        """Remove the given blobs that are neither locked nor in use.

        `used` returns the digests in use. It is called once the exclusive locks are held, so that no writer can name a
        blob afterwards without waiting. `still` is asked about each blob just before it is removed.

        Raises what `check_format` raises.
        """
        self.check_format()
        # The thread lock is held as well: no thread may add a shared lock between the check and the removal.
        with self._lock, hold_exclusive_locks(self._locks, self._not_shared(digests)) as names:
            kept = {file_name(digest) for digest in used() if is_digest(digest)} if names else set()
            for path in (self.folder / name for name in names if name not in kept):
                if still(path) and (path.is_symlink() or not path.is_dir()):  # a folder is no blob
                    path.unlink(missing_ok=True)
                    self.stat_fingerprints.remove(path)

    def _not_shared(self, digests: Iterable[str]) -> list[str]:
        named = {file_name(digest) for digest in digests if is_digest(digest)}
        return sorted(named - set(self._shared))


def digest_of(data: bytes) -> str:
    """Return the digest of bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _is_blob(entry: "os.DirEntry[str]") -> bool:
    return is_digest(entry.name) and not entry.is_dir(follow_symlinks=False)


def touch_if_present(path: Path) -> bool:
    """Set a file's time to now. Return whether the file exists."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _mismatch(expected: str, got: str) -> DigestMismatchError:
    error = DigestMismatchError(expected, got)
    # The text repeats what the client wrote, with either separator. Programs read one form.
    error.info["expected"] = expected.replace("-", ":", 1)
    return error
