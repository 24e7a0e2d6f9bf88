"""The layers of a model: the paths of its files, and the texts and parameters that are stored with it."""

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from puna.errors import PunaError
from puna.go import json_text
from puna.messages import Message
from puna.model_name import ModelName
from puna.models.facts.details import local_time
from puna.models.layout import media_types, preset_messages
from puna.models.layout.config import Config
from puna.models.layout.manifest import Layer, Manifest
from puna.models.relative_names import check_names
from puna.models.storage import bounded_files, integrity
from puna.models.storage.blobs import BlobStore
from puna.models.storage.linked import InPlace, linked


class UnreadableModelError(PunaError):
    """A model whose files exist and are damaged."""

    reason = "MODEL_UNREADABLE"


class ModelLayers:
    """The layers of one model as they were when the store was asked. Reading one may block; each is read once.

    A layer that cannot be read raises UnreadableModelError or OSError where it is asked for.
    """

    def __init__(
        self, name: ModelName, manifest: Manifest, *, digest: str, modified_ns: int, config: Config, blobs: BlobStore
    ) -> None:
        self.name = name
        """With the spelling of the store."""
        self.manifest = manifest
        self.digest = digest
        """SHA-256 of the manifest, 64 hexadecimal digits."""
        self.modified_ns = modified_ns
        """When the manifest was written, in nanoseconds since 1970."""
        self.config = config
        self._blobs = blobs

    @property
    def size(self) -> int:
        """Bytes of all layers and the configuration."""
        return self.manifest.size

    @property
    def modified(self) -> datetime:
        """When its manifest was written, in local time."""
        return local_time(self.modified_ns)

    @property
    def parent_model(self) -> str:
        """The name of the model that this one was created from; empty if there is none."""
        # A manifest may name several layers of one type. The last one counts, as in Ollama.
        layer = self.manifest.last(media_types.MODEL, media_types.FILE)
        return layer.source if layer else ""

    @property
    def model_path(self) -> Path | None:
        """The model file; None for an opaque model and for the stub of a remote model."""
        return self._path(self.manifest.last(media_types.MODEL))

    @cached_property
    def files(self) -> Mapping[str, Path]:
        """The blobs of an opaque model's files by their relative names.

        Raises UnreadableModelError for names that cannot be files of one folder: a registry may send any.
        """
        layers = self.manifest.of(media_types.FILE)
        try:
            check_names(layer.name for layer in layers)
        except ValueError as error:
            raise UnreadableModelError(f"{self.name.shortest}: {error}") from error
        return {layer.name: self._blobs.path(layer.digest) for layer in layers}

    @property
    def load_key(self) -> str:
        """The identity by which the model is loaded: models of equal keys are loaded once.

        Models that share a GGUF file and the adapters for it share them as a loaded model, whatever their texts and
        parameters are. An opaque model is its files, and all that its configuration tells the backend.
        """
        if not self.config.is_opaque:
            return "\n".join(map(str, (self.model_path, *self.adapter_paths))) if self.model_path else ""
        config = self.config
        files = [[layer.name, layer.digest] for layer in self.manifest.of(media_types.FILE)]
        told = [config.backend, config.backend_format, config.upstream, dict(config.backend_options), files]
        return "opaque " + hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @property
    def adapter_paths(self) -> tuple[Path, ...]:
        """LoRA adapters."""
        return tuple(self._blobs.path(layer.digest) for layer in self.manifest.of(media_types.ADAPTER))

    @property
    def projector_paths(self) -> tuple[Path, ...]:
        """Encoders of images and audio. Only the first is used."""
        return tuple(self._blobs.path(layer.digest) for layer in self.manifest.of(media_types.PROJECTOR))

    @property
    def draft_path(self) -> Path | None:
        """The draft model for speculative decoding."""
        return self._path(self.manifest.last(media_types.DRAFT))

    @property
    def in_place(self) -> tuple[InPlace, ...]:
        """The files that were imported in place, with their present state."""
        return linked(self._blobs, self.manifest.layers)

    def verify(self, *, thorough: bool, stopped: Callable[[], bool]) -> None:
        """Raise DamagedModelError if a file that a load needs is missing or changed: see `integrity`. Blocks."""
        layers = self.manifest.of(
            media_types.MODEL, media_types.PROJECTOR, media_types.ADAPTER, media_types.DRAFT, media_types.FILE
        )
        integrity.check_layers(self._blobs, layers, self.name.shortest, thorough=thorough, stopped=stopped)

    @cached_property
    def template(self) -> str | None:
        """The Go template; None if the model has none of its own."""
        # PROMPT is the old name of TEMPLATE.
        layer = self.manifest.last(media_types.TEMPLATE, media_types.PROMPT)
        return self._text(layer) if layer else None

    @cached_property
    def system(self) -> str:
        """The system message; empty if there is none."""
        layer = self.manifest.last(media_types.SYSTEM)
        return self._text(layer) if layer else ""

    @cached_property
    def licenses(self) -> tuple[str, ...]:
        """All licenses, in order."""
        return tuple(self._text(layer) for layer in self.manifest.of(media_types.LICENSE))

    @cached_property
    def parameters(self) -> Mapping[str, Any]:
        """Default options of requests, unchecked. Later layers override earlier ones."""
        # Unchecked, because a model that another program wrote must load even if one of its parameters is unknown.
        merged: dict[str, Any] = {}
        for layer in self.manifest.of(media_types.PARAMS):
            value = self._json(layer)
            if isinstance(value, dict):
                merged |= value
        return merged

    @cached_property
    def messages(self) -> tuple[Message, ...]:
        """Messages that precede every conversation."""
        layer = self.manifest.last(media_types.MESSAGES)
        if layer is None:
            return ()
        data = self._bytes(layer)
        try:
            return preset_messages.loads(data)
        except ValueError as error:
            raise UnreadableModelError(f"messages of {self.name.shortest}: {error}") from error

    def _path(self, layer: Layer | None) -> Path | None:
        return self._blobs.path(layer.digest) if layer else None

    def _bytes(self, layer: Layer) -> bytes:
        try:
            return bounded_files.read(self._blobs.path(layer.digest), bounded_files.LAYER)
        except ValueError as error:
            raise UnreadableModelError(f"{self.name.shortest}: {error}") from error

    def _text(self, layer: Layer) -> str:
        # The files come from untrusted sources, and a bad byte must not make a model unusable.
        return self._bytes(layer).decode("utf-8", "replace")

    def _json(self, layer: Layer) -> object:
        data = self._bytes(layer)
        try:
            return json_text.loads(data)
        except ValueError as error:
            raise UnreadableModelError(f"parameters of {self.name.shortest}: {error}") from error
