"""Installs llamita in a store, as an ordinary model that can be shown, copied and deleted."""

import logging
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from puna.gguf import reader as gguf
from puna.models.facts.details import completed
from puna.models.layout import config as configs
from puna.models.layout import manifest as manifests
from puna.models.layout import media_types
from puna.models.layout.config import Config
from puna.models.layout.manifest import Layer, Manifest
from puna.models.name import ModelName
from puna.models.storage.blobs import BlobStore, SharedLocks
from puna.models.store import ModelStore
from puna.process import temporary_folders
from puna.process.temporary_folders import Scratch

log = logging.getLogger(__name__)

NAME: Final = ModelName.parse("llamita")
MODEL: Final = "llamita.gguf"
_TEXTS: Final = (
    (media_types.TEMPLATE, "template.tmpl"),
    (media_types.SYSTEM, "system.txt"),
    (media_types.LICENSE, "license.txt"),
    (media_types.PARAMS, "params.json"),
)
"""Media types and files of the text layers, in the order of `puna create`. Missing files are skipped."""
_CHUNK: Final = 1 << 20


def install(store: ModelStore) -> bool:
    """Install llamita in the store, replacing any model of that name. Return False if it was there already."""
    folder = files("puna.demo")
    name = store.resolve(NAME)
    with store.blobs.hold_shared_locks() as shared_locks:
        data = _manifest(store.blobs, shared_locks, folder)
        # An unchanged manifest is left alone, so that its date stays.
        before = store.manifests.read(name)
        if before is not None and manifests.dumps(before) == data:
            return False
        stale = store.manifests.replace(name, data)
    store.remove_unused(stale)
    return True


def install_in_new_store(root: Path) -> bool:
    """Make a store that contains llamita. A folder that exists, even an empty one, is left alone.

    The folder appears in one step, complete. Return whether it was made; an error is logged.
    """
    if root.exists() or root.is_symlink():
        return False
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{root.name}-"
        temporary_folders.sweep(root.parent, prefix)
        with Scratch(root.parent, prefix) as around:
            made = around.path / root.name
            made.mkdir()
            made.chmod(0o755)
            install(ModelStore(made))
            made.rename(root)  # fails if another process has made the folder meanwhile and filled it
    except OSError as error:
        log.warning("cannot make a store with the demo model in %s: %s", root, error)
        return False
    return True


def _manifest(blobs: BlobStore, shared_locks: SharedLocks, folder: Traversable) -> bytes:
    """Store the blobs and return the bytes of the manifest that names them."""
    layers = [_model(blobs, shared_locks, folder / MODEL)]
    for media_type, file_name in _TEXTS:
        if (file := folder / file_name).is_file():
            blob = blobs.add(_text(file, media_type), shared_locks)
            layers.append(Layer(media_type=media_type, digest=blob.digest, size=blob.size))
    config = completed(Config(), gguf.read(blobs.path(layers[0].digest)))
    blob = blobs.add(configs.dumps(config), shared_locks)
    return manifests.dumps(
        Manifest(Layer(media_type=media_types.CONFIG, digest=blob.digest, size=blob.size), tuple(layers))
    )


def _model(blobs: BlobStore, shared_locks: SharedLocks, file: Traversable) -> Layer:
    with file.open("rb") as source, blobs.writer() as writer:
        while chunk := source.read(_CHUNK):
            writer.write(chunk)
        blob = writer.commit()
    shared_locks.add(blob.digest)
    return Layer(media_type=media_types.MODEL, digest=blob.digest, size=blob.size)


def _text(file: Traversable, media_type: str) -> bytes:
    data = file.read_bytes()
    return data if data.endswith(b"\n") or media_type != media_types.PARAMS else data + b"\n"
