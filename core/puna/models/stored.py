"""A model of the store with the facts in its files. Each fact is read at its first use."""

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Final

from puna.errors import BackendNotFoundError, PunaError, TemplateLimitError
from puna.gguf.reader import GGUF, GGUFError
from puna.gguf.types import UNKNOWN
from puna.go.template.facts import Facts
from puna.model_name import ModelName
from puna.models.backends import BackendFacts, Backends
from puna.models.facts import capabilities, chat_template, folder_template, selection
from puna.models.facts.details import Details, ModelSummary, describe
from puna.models.facts.header_cache import HeaderCache
from puna.models.layout.config import Config
from puna.models.layout.manifest import Manifest
from puna.models.model_layers import ModelLayers, UnreadableModelError
from puna.models.storage.blobs import BlobStore

__all__ = ["FAULTS", "StoredModel", "UnreadableModelError"]

FAULTS: Final = (PunaError, OSError, ValueError, TypeError, LookupError, ArithmeticError, RecursionError)
"""Errors that reading a model may raise if its files are damaged in a way that no check foresees."""


class StoredModel(ModelLayers):
    """One model as it was when the store was asked: its layers, and what its files say about it.

    A damaged file raises UnreadableModelError, GGUFError, TemplateError or OSError where it is asked for.
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
        backends: Backends,
    ) -> None:
        super().__init__(name, manifest, digest=digest, modified_ns=modified_ns, config=config, blobs=blobs)
        self._backends = backends
        self._header_cache = header_cache
        self._go_template = go_template

    @cached_property
    def template_facts(self) -> Facts | None:
        """The facts about the Go template; None if the model has none. Raises TemplateError.

        A template that exceeds a limit has no facts. Rendering a prompt with it raises the error that names the limit.
        """
        if self.template is None:
            return None
        try:
            return self._header_cache.template(self.template)
        # The model must stay in lists and be deletable, so the limit is reported only when a prompt is rendered.
        except TemplateLimitError:
            return Facts()

    @cached_property
    def gguf(self) -> GGUF:
        """The header of the model file, without arrays. Raises UnreadableModelError if there is no model file."""
        if self.model_path is None:
            raise UnreadableModelError(f"{self.name.shortest} has no model file")
        return self._header_cache.header(self.model_path)

    @cached_property
    def projectors(self) -> tuple[GGUF, ...]:
        """The headers of the projectors that can be read."""
        return tuple(header for path in self.projector_paths if (header := self._readable(path)) is not None)

    @cached_property
    def chat_template(self) -> str:
        """The Jinja template in the model's files; empty if there is none or it cannot be read."""
        if self.config.is_opaque:
            return self._folder_templates[0]
        header = self._model_header
        return header.text("tokenizer.chat_template") if header else ""

    @cached_property
    def tool_chat_template(self) -> str:
        """The Jinja template in the model's files for conversations with tools; empty if there is none."""
        if self.config.is_opaque:
            return self._folder_templates[1]
        header = self._model_header
        return header.text("tokenizer.chat_template.tool_use") if header else ""

    @cached_property
    def _folder_templates(self) -> tuple[str, str]:
        try:
            return folder_template.chat_templates(self.files)
        # A list must not fail over one model. A load names the missing file or the bad name.
        except (OSError, UnreadableModelError):
            return "", ""

    @property
    def _jinja(self) -> str:
        """The text of both Jinja templates, from which capabilities are detected."""
        return self.chat_template + self.tool_chat_template

    @cached_property
    def mode(self) -> selection.Mode:
        """How prompts are made: "rendered" or "native"."""
        return selection.mode(self.config, self.template, self.template_facts, self._jinja, self._go_template)

    @property
    def uses_jinja(self) -> bool:
        """Whether prompts are made with the Jinja template in the model's files."""
        return self.mode == "native" and bool(self.chat_template)

    @property
    def is_harmony(self) -> bool:
        """Whether the model speaks gpt-oss's own format, Harmony."""
        return selection.is_harmony(self.config, self.template)

    @property
    def capabilities(self) -> tuple[str, ...]:
        """The capabilities, in Ollama's order."""
        return self._capabilities_of_backend() if self._backend_decides else self._detected_capabilities

    @property
    def _backend_decides(self) -> bool:
        """Whether the capabilities are the backend's: it alone reads the files, or takes messages itself."""
        return self.config.is_opaque or ((facts := self.backend_facts) is not None and facts.is_chat_level)

    # Not cached, since a backend may be installed or upgraded while the server runs.
    def _capabilities_of_backend(self) -> tuple[str, ...]:
        facts, known = self.backend_facts, self.template_facts
        if self.uses_jinja:
            template = chat_template.capabilities(self._jinja)
        else:
            template = selection.template_capabilities(known) if known else ()
        return capabilities.of_backend(self.config, facts, template=template)

    @property
    def wanted_backend(self) -> str:
        """The backend that must serve the model: that of the configuration, or else the model's own; empty: any."""
        return self._backends.configured(self.name.shortest) or self.config.backend

    @property
    def serving_backend(self) -> str:
        """The backend that would serve the model now; empty if none is installed that does."""
        try:
            return self._backends.serving(self.config.format, self.wanted_backend)
        except BackendNotFoundError:
            return ""

    @property
    def backend_facts(self) -> BackendFacts | None:
        """The facts about the backend that would serve the model now; None if there is none."""
        name = self.serving_backend
        try:
            return self._backends.facts(name) if name else None
        except BackendNotFoundError:  # removed in between
            return None

    @cached_property
    def _detected_capabilities(self) -> tuple[str, ...]:
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
        """The details that `show` returns."""
        return describe(self.config, self.parent_model, self._model_header)

    @property
    def summary(self) -> ModelSummary:
        """The model's entry in a list. Reads the file only up to the vocabulary, unless the file type is missing."""
        summary = self._summary
        capabilities = self.capabilities if self._backend_decides else summary.capabilities
        return replace(summary, capabilities=capabilities, serving_backend=self.serving_backend)

    @cached_property
    def _summary(self) -> ModelSummary:
        known = self.template_facts
        header = self._peeked()
        # A file type that is not written down may stand behind the vocabulary: llama.cpp's quantizer puts it there.
        whole = self._model_header if header is not None and self.config.file_type in ("", UNKNOWN) else None
        return ModelSummary(
            name=self.name,
            digest=self.digest,
            size=self.size,
            modified_ns=self.modified_ns,
            details=describe(self.config, self.parent_model, header, whole),
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
            # A list must not read 150,000 strings of each model's vocabulary.
            return self._header_cache.peek(self.model_path)
        except (GGUFError, OSError):
            return None

    def _readable(self, path: Path) -> GGUF | None:
        try:
            return self._header_cache.header(path)
        except (GGUFError, OSError):
            return None
