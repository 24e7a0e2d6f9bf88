"""Importing GGUF files in place: a blob is made a hard or a symbolic link to the file.

A hard link is a second name of the same file. It takes no space, and the blob stays if the first name is removed.
Across file systems a symbolic link is made, and the model lasts as long as the file. Ollama reads both as any other
blob. The stat fingerprint records where the file is and what its `stat` was, since its owner may write to it at any
time.
"""

import hashlib
import os
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Final

from puna.atomic_files import sync_folder
from puna.errors import CreateFailedError
from puna.model_name import ModelName
from puna.models.create.create import create
from puna.models.create.request import CreateRequest
from puna.models.progress import JobPhase, TransferStep
from puna.models.storage.blobs import BlobStore, SharedLocks
from puna.models.storage.integrity import CHUNK, StoppedError, find_damage
from puna.models.storage.stat_fingerprints import Place, StatFingerprint
from puna.models.store import ModelStore
from puna.models.upkeep.scan import Found

_TICK: Final = 0.06


class Link(Enum):
    """The way in which a file becomes a blob."""

    AUTOMATIC = "auto"
    """A hard link if possible, otherwise a symbolic link."""
    HARD = "hard"
    SYMBOLIC = "symbolic"
    COPY = "copy"


def register(
    store: ModelStore,
    found: Found,
    name: ModelName,
    *,
    link: Link = Link.AUTOMATIC,
    backend: str = "",
    format: str = "",  # noqa: A002 (the domain's word)
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[TransferStep]:
    """Create a model from files that stay where they are, and yield its progress. Shards are joined, which is a copy.

    Raises CreateFailedError if a file changes meanwhile or cannot be linked, StoppedError, and the errors of
    `create`.
    """
    files: dict[str, str] = {}
    with store.blobs.hold_shared_locks() as shared_locks:
        paths = (*found.files, *found.projectors)
        for file, path in zip(found.names or (path.name for path in paths), paths, strict=True):
            files[file] = yield from _added(store.blobs, path, link, shared_locks, stopped)
        request = CreateRequest(name=name.full, files=files, backend=backend, format=format, as_is=True)
        # The shared locks stay until the manifest names the blobs.
        yield from create(store, request, stopped=stopped)
    # The joined file is the model; the links to its shards are not needed any more.
    if found.is_split:
        store.remove_unused(frozenset(files.values()))


def _added(
    blobs: BlobStore, path: Path, link: Link, shared_locks: SharedLocks, stopped: Callable[[], bool]
) -> Generator[TransferStep, None, str]:
    """Make a file a blob and return its digest."""
    try:
        # The target of a link is recorded: the link itself may be moved or changed.
        origin = path.resolve(strict=True)
        before = StatFingerprint.of(origin)
        if link is Link.COPY:
            return (yield from _copied(blobs, origin, shared_locks, stopped))
        digest = _known(blobs, origin, before) or (yield from _read(origin, None, stopped))
        # A digest of a file that changed while it was read belongs to no content at all.
        if StatFingerprint.of(origin) != before:
            raise CreateFailedError(f"{path} has changed while it was read")
        shared_locks.add(digest)
        if not os.path.lexists(blobs.path(digest)) or _is_worse(blobs, digest, before.size, stopped):
            _link(blobs, origin, digest, link)
    except OSError as error:
        raise CreateFailedError(f"{path}: {error.strerror}") from error
    return digest


def _known(blobs: BlobStore, origin: Path, now: StatFingerprint) -> str:
    """Return the digest of a file that was imported before and is unchanged; empty otherwise."""
    # A second import of a large folder need not read it again.
    for name in blobs.stat_fingerprints.names():
        blob = blobs.folder / name
        fingerprint = blobs.stat_fingerprints.read(blob)
        if fingerprint == replace(now, origin=str(origin), place=fingerprint.place if fingerprint else ""):
            return name.replace("-", ":", 1)
    return ""


def _read(
    path: Path, write: Callable[[bytes], object] | None, stopped: Callable[[], bool]
) -> Generator[TransferStep, None, str]:
    """Hash a file, pass its bytes on and yield progress. Return the digest."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        total = os.fstat(file.fileno()).st_size
        spoken, done = 0.0, 0
        while chunk := file.read(CHUNK):
            if stopped():
                raise StoppedError
            digest.update(chunk)
            if write is not None:
                write(chunk)
            done += len(chunk)
            if time.monotonic() - spoken >= _TICK or done == total:
                spoken = time.monotonic()
                yield TransferStep(JobPhase.READING_FILES, f"reading {path.name}", "", total, done)
    return f"sha256:{digest.hexdigest()}"


def _copied(
    blobs: BlobStore, origin: Path, shared_locks: SharedLocks, stopped: Callable[[], bool]
) -> Generator[TransferStep, None, str]:
    with blobs.writer() as writer:
        digest = yield from _read(origin, writer.write, stopped)
        shared_locks.add(digest)
        writer.commit(digest)
    return digest


def _is_worse(blobs: BlobStore, digest: str, size: int, stopped: Callable[[], bool]) -> bool:
    """Return whether the existing blob is damaged, so that the file must replace it."""
    return bool(find_damage(blobs, digest, size, thorough=True, stopped=stopped))


def _link(blobs: BlobStore, origin: Path, digest: str, link: Link) -> None:
    """Link a file to its digest's name, and replace an existing blob."""
    target = blobs.path(digest)
    blobs.folder.mkdir(parents=True, exist_ok=True)
    # Neither kind of link replaces an existing name.
    target.unlink(missing_ok=True)
    place = Place.SYMBOLIC_LINK
    if link is not Link.SYMBOLIC:
        try:
            target.hardlink_to(origin)
            place = Place.HARD_LINK
        except OSError:  # another file system, or one without hard links, or a file of another user
            if link is Link.HARD:
                raise
    if place is Place.SYMBOLIC_LINK:
        target.symlink_to(origin)
    sync_folder(blobs.folder)
    blobs.stat_fingerprints.write(target, origin=str(origin), place=place)
