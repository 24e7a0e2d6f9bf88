"""Installs the demo models in a store, as ordinary models that can be shown, copied and deleted."""

import logging
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from puna.gguf import reader as gguf
from puna.model_name import ModelName
from puna.models.facts.details import completed
from puna.models.layout import config as configs
from puna.models.layout import manifest as manifests
from puna.models.layout import media_types
from puna.models.layout.config import Config
from puna.models.layout.manifest import Layer, Manifest
from puna.models.storage.blobs import BlobStore, SharedLocks
from puna.models.store import ModelStore
from puna.process import temporary_folders
from puna.process.temporary_folders import Scratch

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DemoModel:
    """A model that the wheel brings along."""

    name: ModelName
    model: str
    """Name of the GGUF file in this package."""
    texts: tuple[tuple[str, str], ...]
    """Media types and files of the text layers, in the order of `puna create`."""


LLAMITA: Final = DemoModel(
    ModelName.parse("llamita"),
    "llamita.gguf",
    (
        (media_types.TEMPLATE, "template.tmpl"),
        (media_types.LICENSE, "license.txt"),
        (media_types.PARAMS, "params.json"),
    ),
)
LLAMITA_EMBED: Final = DemoModel(
    ModelName.parse("llamita-embed"), "llamita-embed.gguf", ((media_types.LICENSE, "license.txt"),)
)
DEMO_MODELS: Final = (LLAMITA_EMBED, LLAMITA)
"""In the order of installation. Listings begin with the newest model, which is llamita."""
_CHUNK: Final = 1 << 20


def install(store: ModelStore) -> bool:
    """Install the demo models in the store, replacing any models of their names. Return False if nothing changed."""
    changed = [_install(store, demo) for demo in DEMO_MODELS]
    return any(changed)


def _install(store: ModelStore, demo: DemoModel) -> bool:
    name = store.resolve(demo.name)
    with store.blobs.hold_shared_locks() as shared_locks:
        data = _manifest(store.blobs, shared_locks, demo)
        # An unchanged manifest is left alone, so that its date stays.
        before = store.manifests.read(name)
        if before is not None and manifests.dumps(before) == data:
            return False
        stale = store.manifests.replace(name, data)
    store.remove_unused(stale)
    return True


def install_in_new_store(root: Path) -> bool:
    """Make a store that contains the demo models. A folder that exists, even an empty one, is left alone.

    The folder appears in one step, complete. Return whether it was made; an error is logged.
    """
    # A broken link counts as existing too: its target may be a disk that is not mounted.
    if root.exists() or root.is_symlink():
        return False
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{root.name}-"
        # Folders of processes that died while making the store.
        temporary_folders.sweep(root.parent, prefix)
        # The store is made beside its place and renamed, so that a process that dies leaves no half of a store.
        with Scratch(root.parent, prefix) as around:
            made = around.path / root.name
            made.mkdir()
            # Scratch folders are private; a store is not.
            made.chmod(0o755)
            install(ModelStore(made))
            made.rename(root)  # fails if another process has made the folder meanwhile and filled it
    except OSError as error:
        log.warning("cannot make a store with the demo models in %s: %s", root, error)
        return False
    return True


def _manifest(blobs: BlobStore, shared_locks: SharedLocks, demo: DemoModel) -> bytes:
    """Store the blobs and return the bytes of the manifest that names them."""
    folder = files("puna.demo")
    layers = [_model(blobs, shared_locks, folder / demo.model)]
    for media_type, file_name in demo.texts:
        blob = blobs.add(_text(folder / file_name, media_type), shared_locks)
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
