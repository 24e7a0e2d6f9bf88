"""Verifying that blobs have the content of their digest, reading as little as possible: see `stat_fingerprints`."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from puna.errors import DamagedModelError
from puna.models.layout.manifest import Layer
from puna.models.storage.blobs import BlobStore
from puna.models.storage.digest import file_name
from puna.models.storage.stat_fingerprints import SMALL, FileState

CHUNK: Final = 4 << 20
OnBytes = Callable[[int], None]
"""Called with the size in bytes of each chunk that was hashed."""


class StoppedError(Exception):
    """The caller no longer wants the result."""


def never() -> bool:
    """Return False: nothing stops the work."""
    return False


def ignore(count: int) -> None:
    """Do nothing with the progress."""


def digest_of_file(path: Path, stopped: Callable[[], bool] = never, on_bytes: OnBytes = ignore) -> str:
    """Return a file's digest. `stopped` is asked before each chunk. Raises OSError and StoppedError."""
    found = hashlib.sha256()
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    # One buffer is reused for the whole file, without a copy between the kernel and the hash.
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            if stopped():
                raise StoppedError
            found.update(view[:count])
            on_bytes(count)
    return f"sha256:{found.hexdigest()}"


def find_damage(
    blobs: BlobStore,
    digest: str,
    size: int,
    *,
    thorough: bool,
    stopped: Callable[[], bool] = never,
    on_bytes: OnBytes = ignore,
    use_fingerprints: bool = True,
) -> str:
    """Return a sentence that names the damage of a blob; empty for an intact one. Blocks while the blob is hashed.

    `size` is the size in bytes that a manifest gives, 0 if none does. A blob with an unchanged fingerprint is not read,
    unless `use_fingerprints` is false. A large blob without a fingerprint is read only if `thorough`. A blob that was
    read and is right gets a new fingerprint. Raises StoppedError, and OSError if the file exists and cannot be read.
    """
    path = blobs.path(digest)
    origin = fingerprint.origin if (fingerprint := blobs.stat_fingerprints.read(path)) is not None else ""
    where = f"{origin}, which is used in place as blob {path.name}," if origin else f"blob {path}"
    try:
        found = path.stat().st_size
        state = blobs.stat_fingerprints.state(path)
    except FileNotFoundError:
        return f"{where} is gone"
    # The size costs one `stat` and finds every truncated file.
    if size and found != size:
        return f"{where} has {found} bytes instead of {size}"
    if state is FileState.UNCHANGED and use_fingerprints:
        return ""
    # Blobs that Ollama pulled have no fingerprint. Reading them at every load would cost minutes.
    if state is FileState.UNKNOWN and found >= SMALL and not thorough:
        return ""
    if file_name(digest_of_file(path, stopped, on_bytes)) != path.name.lower():
        return f"{where} has changed: its content is not that of its digest"
    blobs.stat_fingerprints.renew(path)
    return ""


def check_layers(
    blobs: BlobStore, layers: tuple[Layer, ...], name: str, *, thorough: bool, stopped: Callable[[], bool]
) -> None:
    """Raise DamagedModelError for the first layer whose blob is damaged. The error says what to do. Blocks."""
    for layer in layers:
        try:
            found = find_damage(blobs, layer.digest, layer.size, thorough=thorough, stopped=stopped)
        except OSError as error:
            found = f"blob {blobs.path(layer.digest)} cannot be read: {error.strerror}"
        if found:
            raise DamagedModelError(name, found)
