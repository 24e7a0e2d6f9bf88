"""Blobs: files named by the SHA-256 of their content.

A blob is written under another name and renamed when it is whole, so whatever stands under a digest is that content.
Blobs that a running creation is about to use are claimed: until the claim ends nobody removes them, also not from
another process of ours.
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

from puna.errors import BlobNotFoundError, DigestMismatchError
from puna.go.json import quote
from puna.models.storage import durable
from puna.models.storage.digest import file_name, is_digest
from puna.models.storage.locks import LockedBytes, seized
from puna.models.storage.seals import SMALL, Seals, State

_CHUNK: Final = 1 << 20
PRIVATE: Final = ".puna"
"""The folder beside the blobs with what is Puna's own: locks and seals."""
TEMPORARY_PREFIX: Final = "sha256-"  # as the reference's: whoever prunes next takes it for what it is


@dataclass(frozen=True, slots=True)
class Blob:
    """A stored blob."""

    digest: str
    size: int
    created: bool
    """Whether it was not there before."""


class BlobWriter:
    """A blob that is being written."""

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
        """Store what was written. Raises DigestMismatchError, and stores nothing, when it is not exactly `expected`.

        With `keep`, whole bytes of another digest are stored under that one first, as the reference does: whoever sends
        them again under it need not. Nothing refers to them, so that a start an hour later prunes them.
        """
        digest = f"sha256:{self._hash.hexdigest()}"
        wrong = expected is not None and expected != digest
        if wrong and not keep:
            raise DigestMismatchError(expected or "", digest)
        created = self._blobs.settle(self._file, self._path, digest)
        if wrong:
            raise DigestMismatchError(expected or "", digest)
        return Blob(digest, self._size, created=created)


class Claims:
    """The digests that one creation holds on to."""

    def __init__(self, lock: threading.RLock, counter: Counter[str], locked: LockedBytes) -> None:
        self._lock = lock
        self._counter = counter
        self._locked = locked
        self._held: list[str] = []

    def add(self, digest: str) -> None:
        """Hold on to a digest, present or not. Whether it is there counts only from now on."""
        with self._lock:
            self._counter[file_name(digest)] += 1
            self._held.append(file_name(digest))
        self._locked.share(file_name(digest))

    def release(self) -> None:
        """Let go of everything."""
        self._locked.close()
        with self._lock:
            self._counter.subtract(self._held)
            self._counter += Counter()  # drops what nobody holds any more
            self._held.clear()


class BlobStore:
    """The folder of blobs. Every call may block; all may be made from several threads at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seals = Seals(folder.parent / PRIVATE / "seals")
        self._locks = folder.parent / PRIVATE / "lock"
        self._lock = threading.RLock()
        self._claimed: Counter[str] = Counter()

    def path(self, digest: str) -> Path:
        """Return where the blob is or would be. Raises InvalidDigestError."""
        return self.folder / file_name(digest)

    def has(self, digest: str) -> bool:
        """Whether the blob is there. Raises InvalidDigestError."""
        return self.path(digest).is_file()

    def size(self, digest: str) -> int:
        """Return the blob's bytes. Raises InvalidDigestError and BlobNotFoundError."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise BlobNotFoundError(f"blob {quote(digest)} not found") from None

    def files(self) -> list[Path]:
        """Return all blobs, links that lead nowhere included."""
        try:
            return sorted(Path(entry.path) for entry in os.scandir(self.folder) if _is_blob(entry))
        except FileNotFoundError:
            return []

    @contextlib.contextmanager
    def writer(self) -> Iterator[BlobWriter]:
        """Write a blob piece by piece; what is not committed leaves nothing behind."""
        with durable.temporary(self.folder, TEMPORARY_PREFIX) as (path, file):
            yield BlobWriter(path, file, self)

    def add(self, data: bytes, claims: Claims | None = None) -> Blob:
        """Store a blob that is at hand, claimed before it appears."""
        if claims is not None:
            claims.add(digest_of(data))
        with self.writer() as writer:
            writer.write(data)
            return writer.commit()

    def adopt(self, path: Path, claims: Claims | None = None) -> Blob:
        """Store a file of this folder, claimed before it appears; the file itself is gone if its content is new."""
        with path.open("rb+") as file:
            digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
            if claims is not None:
                claims.add(digest)
            size = file.seek(0, os.SEEK_END)
            return Blob(digest, size, created=self.settle(file, path, digest))

    def settle(self, file: BinaryIO, path: Path, digest: str) -> bool:
        """Give a whole file of this folder its digest's name; whether nobody had it. Who may be damaged is replaced."""
        target = self.path(digest)
        is_there = self._touched(target)
        if is_there and self._is_sound(target, digest):
            return False
        durable.settle(file, path, target)
        self.verified(digest)
        return not is_there

    def _is_sound(self, path: Path, digest: str) -> bool:
        """Whether a blob is known, or found without much ado, to be what its name says."""
        if self.seals.state(path) is State.INTACT:
            return True
        return path.stat().st_size < SMALL and digest_of(path.read_bytes()) == digest

    def verified(self, digest: str) -> None:
        """Take down that a blob of the store's own has just been found right."""
        self.seals.forget(self.path(digest))
        self.seals.renew(self.path(digest))

    @contextlib.contextmanager
    def temporary(self) -> Iterator[Path]:
        """Make an empty file beside the blobs, for others to fill; it is removed at the end unless adopted."""
        with durable.temporary(self.folder, TEMPORARY_PREFIX) as (path, _):
            yield path

    def touch(self, digest: str) -> None:
        """Make the blob young, so that no pruning takes it within the hour. A missing one is ignored."""
        self._touched(self.path(digest))

    def _touched(self, path: Path) -> bool:
        """Set a blob's time to now, and keep its seal; whether it is there. Files that lie elsewhere keep theirs."""
        if self.seals.touch(path):
            return path.is_file()
        try:
            intact = self.seals.state(path) is State.INTACT
        except OSError:
            return False
        if not touched(path):
            return False
        if intact:
            self.seals.renew(path)
        return True

    @contextlib.contextmanager
    def claiming(self) -> Iterator[Claims]:
        """Hold on to blobs while a model is made of them."""
        with contextlib.suppress(OSError):
            self._locks.parent.mkdir(parents=True, exist_ok=True)
        claims = Claims(self._lock, self._claimed, LockedBytes(self._locks))
        try:
            yield claims
        finally:
            claims.release()

    def remove(
        self,
        digests: Iterable[str],
        used: Callable[[], frozenset[str]],
        still: Callable[[Path], bool] = os.path.lexists,
    ) -> None:
        """Remove those blobs that nobody claims and nobody uses.

        What is `used` is asked when no more claims can be made. `still` is asked of each blob just before it goes.
        """
        with self._lock, seized(self._locks, self._unclaimed(digests)) as names:
            kept = {file_name(digest) for digest in used() if is_digest(digest)} if names else set()
            for path in (self.folder / name for name in names if name not in kept):
                if still(path) and (path.is_symlink() or not path.is_dir()):  # a folder there is no blob
                    path.unlink(missing_ok=True)
                    self.seals.forget(path)

    def _unclaimed(self, digests: Iterable[str]) -> list[str]:
        named = {file_name(digest) for digest in digests if is_digest(digest)}
        return sorted(named - set(self._claimed))


def digest_of(data: bytes) -> str:
    """Return the digest of bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _is_blob(entry: "os.DirEntry[str]") -> bool:
    return is_digest(entry.name) and not entry.is_dir(follow_symlinks=False)


def touched(path: Path) -> bool:
    """Set a file's time to now; whether it is there."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True
