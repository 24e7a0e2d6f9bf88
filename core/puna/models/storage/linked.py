"""Finding the blobs of a model that are files outside the store, imported in place."""

from collections.abc import Iterable
from dataclasses import dataclass

from puna.models.layout.manifest import Layer
from puna.models.storage.blobs import BlobStore
from puna.models.storage.stat_fingerprints import FileState, Place


@dataclass(frozen=True, slots=True)
class InPlace:
    """A layer whose bytes are in a file outside the store."""

    digest: str
    origin: str
    place: Place
    state: FileState | None
    """None if the file is missing."""


def linked(blobs: BlobStore, layers: Iterable[Layer]) -> tuple[InPlace, ...]:
    """Return the layers that were imported in place, with the state of their files. Only calls `stat`."""
    found = []
    for layer in layers:
        path = blobs.path(layer.digest)
        fingerprint = blobs.stat_fingerprints.read(path)
        if fingerprint is None or not fingerprint.origin:
            continue
        try:
            state: FileState | None = blobs.stat_fingerprints.state(path)
        # A missing file is a state to report and not a failure of the list.
        except OSError:
            state = None
        found.append(InPlace(layer.digest, fingerprint.origin, Place(fingerprint.place), state))
    return tuple(found)
