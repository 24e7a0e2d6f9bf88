"""Whether blobs are what their names say. Reads no more than it must: see `seals`."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from puna.errors import DamagedModelError
from puna.models.layout.manifest import Layer
from puna.models.storage.blobs import BlobStore
from puna.models.storage.digest import file_name
from puna.models.storage.seals import SMALL, State

CHUNK: Final = 4 << 20
Heard = Callable[[int], None]
"""Hears of each chunk, by its bytes, while a file is read."""


class StoppedError(Exception):
    """Nobody wants to know any more."""


def never() -> bool:
    """Say that nobody has stopped."""
    return False


def ignore(count: int) -> None:
    """Hear of a chunk and do nothing."""


def digest_of_file(path: Path, stopped: Callable[[], bool] = never, heard: Heard = ignore) -> str:
    """Return a file's digest. Raises OSError, and StoppedError once `stopped()` is true."""
    found = hashlib.sha256()
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            if stopped():
                raise StoppedError
            found.update(view[:count])
            heard(count)
    return f"sha256:{found.hexdigest()}"


def damage(
    blobs: BlobStore,
    digest: str,
    size: int,
    *,
    thorough: bool,
    stopped: Callable[[], bool] = never,
    heard: Heard = ignore,
    sealed: bool = True,
) -> str:
    """Say what is wrong with a blob; empty if nothing is.

    `size` is what a manifest says, 0 if none does. A blob whose seal is intact is not read unless seals do not count
    (`sealed` is false), a large one without a seal only if this is to be `thorough`. What was read is sealed. May block
    for as long as that takes. Raises StoppedError, and OSError when a file is there and cannot be read.
    """
    path = blobs.path(digest)
    origin = seal.origin if (seal := blobs.seals.read(path)) is not None else ""
    where = f"{origin}, which is used in place as blob {path.name}," if origin else f"blob {path}"
    try:
        found = path.stat().st_size
        state = blobs.seals.state(path)
    except FileNotFoundError:
        return f"{where} is gone"
    if size and found != size:
        return f"{where} has {found} bytes instead of {size}"
    if state is State.INTACT and sealed:
        return ""
    if state is State.UNSEALED and found >= SMALL and not thorough:
        return ""
    if file_name(digest_of_file(path, stopped, heard)) != path.name.lower():
        return f"{where} has changed: its content is not that of its digest"
    blobs.seals.renew(path)
    return ""


def check_layers(
    blobs: BlobStore, layers: tuple[Layer, ...], name: str, *, thorough: bool, stopped: Callable[[], bool]
) -> None:
    """Raise DamagedModelError that names the first layer's blob with something wrong, and what to do. Blocks."""
    for layer in layers:
        try:
            found = damage(blobs, layer.digest, layer.size, thorough=thorough, stopped=stopped)
        except OSError as error:
            found = f"blob {blobs.path(layer.digest)} cannot be read: {error.strerror}"
        if found:
            raise DamagedModelError(name, found)
