"""A model of the store: everything about it, read when it is asked for."""

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from puna.errors import PunaError, TemplateLimitError
from puna.gguf.reader import GGUF, GGUFError
from puna.gguf.types import UNKNOWN
from puna.go import json_text
from puna.go.template.facts import Facts
from puna.messages import Message
from puna.models.facts import capabilities, selection
from puna.models.facts.details import Details, ModelSummary, describe, local_time
from puna.models.facts.header_cache import HeaderCache
from puna.models.layout import media_types, preset_messages
from puna.models.layout.config import Config
from puna.models.layout.manifest import Layer, Manifest
from puna.models.name import ModelName
from puna.models.storage import bounded_files, integrity
from puna.models.storage.blobs import BlobStore
from puna.models.storage.linked import InPlace, linked

FAULTS: Final = (PunaError, OSError, ValueError, TypeError, LookupError, ArithmeticError, RecursionError)
"""Errors that reading a model may raise when its files are wrong in a way that no check foresees."""


class UnreadableModelError(PunaError):
    """A model whose files are there but make no sense."""

    reason = "MODEL_UNREADABLE"


class StoredModel:
    """One model as it was when the store was asked. Reading its parts may block; a part is read once.

    What cannot be read raises UnreadableModelError, GGUFError, TemplateError or OSError where it is asked for.
    """

    def __init__(
        self,
        name: ModelName,
        manifest: Manifest,
        *,
        digest: str,
        modified_ns: int,
        config: Config,
        blobs: BlobStore,
        header_cache: HeaderCache,
        go_template: bool | None,
    ) -> None:
        self.name = name
        """With the spelling of the store."""
        self.manifest = manifest
        self.digest = digest
        """SHA-256 of the manifest, 64 hexadecimal digits."""
        self.modified_ns = modified_ns
        self.config = config
        self._blobs = blobs
        self._header_cache = header_cache
        self._go_template = go_template

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
        """The model that it was made from; empty if there is none."""
        layer = self.manifest.last(media_types.MODEL)
        return layer.source if layer else ""

    @property
    def model_path(self) -> Path | None:
        """The model file; None if it has none, as stubs of remote models."""
        return self._path(self.manifest.last(media_types.MODEL))

    @property
    def adapter_paths(self) -> tuple[Path, ...]:
        """LoRA adapters."""
        return tuple(self._blobs.path(layer.digest) for layer in self.manifest.of(media_types.ADAPTER))

    @property
    def projector_paths(self) -> tuple[Path, ...]:
        """Encoders of pictures and sounds; only the first is used."""
        return tuple(self._blobs.path(layer.digest) for layer in self.manifest.of(media_types.PROJECTOR))

    @property
    def draft_path(self) -> Path | None:
        """The draft model for speculative decoding."""
        return self._path(self.manifest.last(media_types.DRAFT))

    @property
    def in_place(self) -> tuple[InPlace, ...]:
        """Those of its files that lie elsewhere, as they are now."""
        return linked(self._blobs, self.manifest.layers)

    def verify(self, *, thorough: bool, stopped: Callable[[], bool]) -> None:
        """Raise DamagedModelError if a file that is to be loaded is gone or another: see `integrity`. Blocks."""
        layers = self.manifest.of(media_types.MODEL, media_types.PROJECTOR, media_types.ADAPTER, media_types.DRAFT)
        integrity.check_layers(self._blobs, layers, self.name.shortest, thorough=thorough, stopped=stopped)

    @cached_property
    def template(self) -> str | None:
        """The Go template; None if the model has none of its own."""
        layer = self.manifest.last(media_types.TEMPLATE, media_types.PROMPT)
        return self._text(layer) if layer else None

    @cached_property
    def template_facts(self) -> Facts | None:
        """The facts about the Go template. Raises TemplateError.

        Nothing is known of one that exceeds a limit; prompts that are to be made with it tell which.
        """
        if self.template is None:
            return None
        try:
            return self._header_cache.template(self.template)
        except TemplateLimitError:
            return Facts()

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
        """Options that hold unless the request says otherwise, unchecked."""
        merged: dict[str, Any] = {}
        for layer in self.manifest.of(media_types.PARAMS):
            value = self._json(layer)
            if isinstance(value, dict):
                merged |= value
        return merged

    @cached_property
    def messages(self) -> tuple[Message, ...]:
        """Preset messages."""
        layer = self.manifest.last(media_types.MESSAGES)
        if layer is None:
            return ()
        data = self._bytes(layer)
        try:
            return preset_messages.loads(data)
        except ValueError as error:
            raise UnreadableModelError(f"messages of {self.name.shortest}: {error}") from error

    @cached_property
    def gguf(self) -> GGUF:
        """Head of the model file, arrays left out. Raises UnreadableModelError if there is no model file."""
        if self.model_path is None:
            raise UnreadableModelError(f"{self.name.shortest} has no model file")
        return self._header_cache.header(self.model_path)

    @cached_property
    def projectors(self) -> tuple[GGUF, ...]:
        """Heads of the projectors that can be read."""
        return tuple(header for path in self.projector_paths if (header := self._readable(path)) is not None)

    @cached_property
    def chat_template(self) -> str:
        """The GGUF's own Jinja template; empty if it has none or cannot be read."""
        header = self._model_header
        return header.text("tokenizer.chat_template") if header else ""

    @cached_property
    def tool_chat_template(self) -> str:
        """The variant of chat_template for conversations with tools; empty if there is none."""
        header = self._model_header
        return header.text("tokenizer.chat_template.tool_use") if header else ""

    @property
    def _jinja(self) -> str:
        """The text of both templates, whose words tell what the model can do."""
        return self.chat_template + self.tool_chat_template

    @cached_property
    def mode(self) -> selection.Mode:
        """How prompts are made: "rendered" or "native"."""
        return selection.mode(self.config, self.template, self.template_facts, self._jinja, self._go_template)

    @property
    def uses_jinja(self) -> bool:
        """Whether the GGUF's own template is the one in use."""
        return self.mode == "native" and bool(self.chat_template)

    @property
    def is_harmony(self) -> bool:
        """Whether the model speaks gpt-oss's own format."""
        return selection.is_harmony(self.config, self.template)

    @cached_property
    def capabilities(self) -> tuple[str, ...]:
        """What it can do, in the reference's order."""
        known = self.template_facts
        in_use = known if known is not None and self.mode == "rendered" else None
        return capabilities.detect(
            self.config,
            self._model_header,
            self.projectors,
            jinja=self._jinja if self.uses_jinja else "",
            template=selection.template_capabilities(in_use) if in_use else (),
        )

    @property
    def details(self) -> Details:
        """What it is, as show says it."""
        return describe(self.config, self.parent_model, self._model_header)

    @cached_property
    def summary(self) -> ModelSummary:
        """Its entry of a list. Reads no more of the model file than the metadata before the vocabulary."""
        known = self.template_facts
        header = self._peeked()
        # A file type that is not written down may stand behind the vocabulary: llama.cpp's quantizer puts it there.
        whole = self._model_header if header is not None and self.config.file_type in ("", UNKNOWN) else None
        return ModelSummary(
            name=self.name,
            digest=self.digest,
            size=self.size,
            modified_ns=self.modified_ns,
            details=describe(self.config, self.parent_model, header, whole, lengths=True),
            capabilities=capabilities.detect_for_list(
                self.config,
                header,
                has_projector=bool(self.projector_paths),
                template=selection.template_capabilities(known) if known else (),
            ),
            remote_host=self.config.remote_host,
            remote_model=self.config.remote_model,
            backend=self.config.backend,
        )

    @cached_property
    def _model_header(self) -> GGUF | None:
        return self._readable(self.model_path) if self.config.is_gguf and self.model_path else None

    def _peeked(self) -> GGUF | None:
        if self.model_path is None or not self.config.is_gguf or self.config.is_remote:
            return None
        try:
            return self._header_cache.peek(self.model_path)
        except (GGUFError, OSError):
            return None

    def _readable(self, path: Path) -> GGUF | None:
        try:
            return self._header_cache.header(path)
        except (GGUFError, OSError):
            return None

    def _path(self, layer: Layer | None) -> Path | None:
        return self._blobs.path(layer.digest) if layer else None

    def _bytes(self, layer: Layer) -> bytes:
        try:
            return bounded_files.read(self._blobs.path(layer.digest), bounded_files.LAYER)
        except ValueError as error:
            raise UnreadableModelError(f"{self.name.shortest}: {error}") from error

    def _text(self, layer: Layer) -> str:
        return self._bytes(layer).decode("utf-8", "replace")

    def _json(self, layer: Layer) -> object:
        data = self._bytes(layer)
        try:
            return json_text.loads(data)
        except ValueError as error:
            raise UnreadableModelError(f"parameters of {self.name.shortest}: {error}") from error
