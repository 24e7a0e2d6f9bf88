"""Which blobs of a model are files that lie elsewhere."""

from collections.abc import Iterable
from dataclasses import dataclass

from puna.models.layout.manifest import Layer
from puna.models.storage.blobs import BlobStore
from puna.models.storage.seals import Place, State


@dataclass(frozen=True, slots=True)
class InPlace:
    """A layer whose bytes are not the store's own."""

    digest: str
    origin: str
    place: Place
    state: State | None
    """None: the file is gone."""


def linked(blobs: BlobStore, layers: Iterable[Layer]) -> tuple[InPlace, ...]:
    """Return those of the layers that are files elsewhere. Reads no file."""
    found = []
    for layer in layers:
        path = blobs.path(layer.digest)
        seal = blobs.seals.read(path)
        if seal is None or not seal.origin:
            continue
        try:
            state: State | None = blobs.seals.state(path)
        except OSError:
            state = None
        found.append(InPlace(layer.digest, seal.origin, Place(seal.place), state))
    return tuple(found)
