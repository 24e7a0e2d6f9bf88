"""Creating a model from another model or from uploaded files.

The order of layers, status lines and checks is Ollama's, since clients show the lines and digests depend on the layers.
A creation passes these steps:

1. Check the request alone (`request.check`).
2. Find the base: the layers of another model, which is pulled if it is missing; uploaded GGUF files; or a conversion of
   uploaded safetensors. Then the adapters and the draft model.
3. Prepare each model file: join shards, add a missing projector type, rewrite or quantize it (`rewrite`).
4. Add layers of text and parameters: the request's, and those of a known chat template (`layers`).
5. Store the configuration and the manifest. Only now the model is visible, and the model that had its name is gone.

The creation holds shared locks on every blob that it is going to name. A failure or a closed iterator leaves temporary
files that are removed at once, and unnamed blobs that a later pruning removes.
"""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from puna.errors import CreateFailedError, InvalidCreateError, InvalidRequestError, TransferError
from puna.gguf import reader as gguf
from puna.gguf import writer as gguf_write
from puna.gguf.reader import GGUF
from puna.gguf.writer import Part
from puna.model_name import ModelName, Source, parse_reference
from puna.models.convert import conversion
from puna.models.create import backend_choice, layers, overrides, quantization, remote
from puna.models.create.layers import Entry
from puna.models.create.request import CreateRequest, check
from puna.models.create.rewrite import COPY, Rewrite, RewriteError
from puna.models.create.uploads import ModelComponent, Uploads
from puna.models.facts.details import completed
from puna.models.layout import config as configs
from puna.models.layout import manifest as manifests
from puna.models.layout import media_types
from puna.models.layout.config import Config, Draft
from puna.models.layout.manifest import Layer, Manifest
from puna.models.progress import JobPhase, TransferStep
from puna.models.storage.blobs import SharedLocks
from puna.models.store import ModelStore
from puna.models.stored import StoredModel

Pull = Callable[[ModelName], Iterator[TransferStep]]
"""Pulls a model that is not in the store."""

INVALID_BASE: Final = "invalid model name"
NO_QUANTIZER: Final = "no installed backend can quantize (`puna plugins` lists the backends and what they lack)"
_PROGRESS_SECONDS: Final = 0.06


def no_pull(name: ModelName) -> Iterator[TransferStep]:
    """Fail as a pull without a registry client does."""
    yield TransferStep(JobPhase.READING_MANIFEST, "pulling manifest")
    raise TransferError(f"pull model manifest: {name.shortest} is not here, and this server has no registry client")


def create(
    store: ModelStore,
    request: CreateRequest,
    *,
    rewriter: Rewrite | None = None,
    pull: Pull = no_pull,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[TransferStep]:
    """Create a model, and yield its progress. Closing the iterator early leaves no visible change.

    `rewriter` rewrites and quantizes files. Without one, files are stored as they are and quantizing is refused.
    `stopped` is asked while a file is rewritten, which can take minutes without a step. Once it is true the creation
    ends.

    Raises InvalidCreateError and its subclasses for errors that the client can avoid, CreateFailedError and GGUFError
    for damaged files, TransferError if the base is missing and cannot be pulled.
    """
    name = check(request)
    with store.blobs.hold_shared_locks() as shared_locks, ExitStack() as scratch:
        creation = _Creation(store, request, store.resolve(name), shared_locks, rewriter, pull, stopped, scratch)
        # Blobs of the replaced model are removed only after the shared locks are released, which would keep them.
        stale = yield from creation.run()
    store.remove_unused(stale)
    yield TransferStep(JobPhase.DONE, "success")


@dataclass(frozen=True, slots=True)
class _Creation:
    """The state of one creation."""

    store: ModelStore
    request: CreateRequest
    name: ModelName
    shared_locks: SharedLocks
    rewriter: Rewrite | None
    pull: Pull
    stopped: Callable[[], bool]
    scratch: ExitStack
    """Holds temporary files until the end of the creation."""

    def run(self) -> Generator[TransferStep, None, frozenset[str]]:
        """Run all steps. Return the digests of the model that had the name before."""
        config, items = yield from self._base(_config(self.request))
        if config.is_opaque:
            files = [each for each in items if isinstance(each, Entry)]
            texts = layers.with_texts(files, self.request, self._read, self.store.read_template)
            return (yield from self._write(config, texts))
        # A stub of a remote model has no files of its own.
        if self.request.adapters and not config.is_remote:
            items += yield from self._adapters(items)
        if self.request.draft_files and not config.is_remote:
            drafts = yield from self._drafts()
            draft = Draft(model_format="gguf", architecture=drafts[-1].header.architecture)
            config, items = replace(config, draft=draft), [*items, *drafts]
        entries: list[Entry] = []
        known: list[Entry] = []
        for item in items:
            if isinstance(item, Entry):
                entries.append(item)
                continue
            component = yield from self._finished(item)
            entries.append(Entry(layer=component.layer, created=component.created))
            if component.layer.media_type == media_types.MODEL:
                config = completed(config, component.header)
                # A model that is made from another one inherits its template.
                known += layers.detected(component.header) if not self.request.base else []
        config, request = layers.with_defaults(config, self.request)
        texts = layers.with_texts(entries + known, request, self._read, self.store.read_template)
        return (yield from self._write(config, texts))

    def _base(self, config: Config) -> Generator[TransferStep, None, tuple[Config, list[ModelComponent | Entry]]]:
        """Return the configuration and layers that the base or the uploaded files give."""
        if self.request.base:
            return (yield from self._from_model(config))
        # Ollama answers 500 for a missing model file and 400 for a missing adapter or draft.
        uploads = Uploads(self.store.blobs, self.shared_locks, "files")
        files = self.request.files or {}
        choice = backend_choice.of_files(self.request, self.store.backends, lambda: uploads.are_gguf(files))
        config = choice.applied(config)
        if choice.is_opaque:
            return config, [Entry(layer=layer) for layer in uploads.opaque(files)]
        if self.request.files is None:
            raise InvalidCreateError("neither 'from' or 'files' was specified")
        if uploads.kind(self.request.files) == "safetensors":
            component = yield from self._converted_model(self.request.files, self.request.quantize)
            return config, [component]
        components: list[ModelComponent] = []
        yield from uploads.read(self.request.files, components)
        return config, [*components]

    def _converted_model(
        self, files: Mapping[str, str], quantize: str
    ) -> Generator[TransferStep, None, ModelComponent]:
        yield TransferStep(JobPhase.CONVERTING, "converting model")
        if quantize:
            quantization.named(quantize)  # an error after an hour of conversion would come late
        return (yield from self._converted(files, media_types.MODEL, None, "converting model"))

    def _converted(
        self, files: Mapping[str, str], media_type: str, base: GGUF | None, status: str
    ) -> Generator[TransferStep, None, ModelComponent]:
        """Convert safetensors to a temporary file. Its layer has no digest until it is stored."""
        target = self.scratch.enter_context(self.store.blobs.temporary())
        paths = {name: self._uploaded(digest) for name, digest in files.items()}
        counts = conversion.convert(paths, target, base, self.stopped)
        yield from _reported(counts, JobPhase.CONVERTING, status)
        layer = Layer(media_type=media_type, digest="", size=target.stat().st_size)
        return ModelComponent(layer=layer, header=gguf.read(target), path=target, uploaded=True)

    def _uploaded(self, digest: str) -> Path:
        """Lock a blob until the end of the creation, and return its path."""
        self.shared_locks.add(digest)
        path = self.store.blobs.path(digest)
        if not path.is_file():
            # The lock is held before this check, so the blob cannot vanish after it.
            raise CreateFailedError(f"open {path}: no such file or directory")
        self.store.blobs.touch(digest)
        return path

    def _from_model(self, config: Config) -> Generator[TransferStep, None, tuple[Config, list[ModelComponent | Entry]]]:
        try:
            reference = parse_reference(self.request.base)
        except InvalidRequestError as error:
            raise InvalidCreateError(INVALID_BASE) from error
        if not reference.name.is_valid:
            raise InvalidCreateError(INVALID_BASE)
        host = self.request.remote_host or (remote.CLOUD if reference.source is Source.CLOUD else "")
        if host:
            if self.request.draft_files:
                raise InvalidCreateError("DRAFT cannot be used with remote models")
            if self.request.backend or self.request.upstream or self.request.format:
                raise InvalidCreateError("a model on a remote server has no backend")
            return replace(config, remote_host=remote.remote_host(host), remote_model=reference.base), []
        base = yield from self._model(reference.name)
        theirs = base.config
        if theirs.is_opaque:
            _ = base.files  # checks their names, which a registry may have sent
        choice = backend_choice.of_base(self.request, theirs, self.store.backends)
        config = choice.applied(replace(config, model_format=theirs.model_format))
        config = replace(
            config,
            renderer=config.renderer or theirs.renderer,
            parser=config.parser or theirs.parser,
            requires=config.requires or theirs.requires,
            capabilities=_capabilities(theirs, config),
            draft=theirs.draft,
        )
        return config, [self._inherited(layer, base.name.shortest) for layer in base.manifest.layers]

    def _model(self, name: ModelName) -> Generator[TransferStep, None, StoredModel]:
        """Return the base model, and pull it if it is missing. The pull's step `success` is left out, since the
        creation goes on."""
        try:
            return self.store.get(name)
        except LookupError:
            for step in self.pull(name):
                if step.phase is not JobPhase.DONE:
                    yield step
        try:
            return self.store.get(name)
        except LookupError as error:
            raise TransferError(f"pull model manifest: {name.shortest} did not come") from error

    def _inherited(self, layer: Layer, source: str) -> ModelComponent | Entry:
        path = self._uploaded(layer.digest)
        inherited = layer.inherited(source)
        if layer.media_type != media_types.MODEL:
            return Entry(layer=inherited)
        return ModelComponent(layer=inherited, header=gguf.read(path), path=path, uploaded=False)

    def _adapters(self, items: list[ModelComponent | Entry]) -> Generator[TransferStep, None, list[ModelComponent]]:
        uploads = Uploads(self.store.blobs, self.shared_locks, "adapters")
        if uploads.kind(self.request.adapters) == "safetensors":
            status = "converting adapter"
            yield TransferStep(JobPhase.CONVERTING, status)
            bases = [each.header for each in items if isinstance(each, ModelComponent) and _is_model(each)]
            if not bases:
                raise CreateFailedError("unsupported architecture")
            adapter = yield from self._converted(self.request.adapters, media_types.ADAPTER, bases[-1], status)
            return [adapter]
        if len(self.request.adapters) > 1:
            raise InvalidCreateError("only one adapter is currently supported")
        components: list[ModelComponent] = []
        yield from uploads.read(self.request.adapters, components)
        return components

    def _drafts(self) -> Generator[TransferStep, None, list[ModelComponent]]:
        uploads = Uploads(self.store.blobs, self.shared_locks, "draft_files")
        if uploads.kind(self.request.draft_files) == "safetensors":
            components = [(yield from self._converted_model(self.request.draft_files, self.request.draft_quantize))]
        else:
            components = []
            yield from uploads.read(self.request.draft_files, components)
        return [
            replace(component, layer=replace(component.layer, media_type=media_types.DRAFT)) for component in components
        ]

    def _finished(self, component: ModelComponent) -> Generator[TransferStep, None, ModelComponent]:
        """Return the component as it is stored: joined, completed, rewritten or quantized as needed."""
        kind = self._rewriting(component)
        # A converted file is not a blob yet.
        if kind is None and not component.layer.digest:
            return self._adopted(component, component.path)
        if kind is None and not component.shards and not component.lacks_projector_type:
            return component
        blobs = self.store.blobs
        # Beside the blobs, so that adopting the result is a rename. Both are removed if they are not adopted.
        with blobs.temporary() as whole, blobs.temporary() as target:
            source = written = component.path
            if component.shards:
                yield from _reported(
                    self._counted(gguf_write.joined([each.path for each in component.shards], whole)),
                    JobPhase.CONVERTING,
                    "joining shards",
                )
                source = written = whole
            if component.lacks_projector_type:
                yield TransferStep(JobPhase.CONVERTING, "updating GGUF projector metadata")
                _add_projector_type(source, target)
                written = target
            elif kind is not None:
                yield from self._rewrite(component, source, target, kind)
                written = target
            return self._adopted(component, written)

    def _adopted(self, component: ModelComponent, written: Path) -> ModelComponent:
        """Store a file as the component's blob."""
        blob = self.store.blobs.adopt(written, self.shared_locks)
        # The new layer has no source: it is not the uploaded file any more.
        layer = Layer(media_type=component.layer.media_type, digest=blob.digest, size=blob.size)
        path = self.store.blobs.path(blob.digest)
        return replace(component, layer=layer, path=path, header=gguf.read(path), created=blob.created, shards=())

    def _rewriting(self, component: ModelComponent) -> str | None:
        """Return the file type to rewrite a component to, "COPY", or None to keep it as it is."""
        has = component.header.file_type
        if component.layer.media_type == media_types.MODEL and self.request.quantize:
            wanted = quantization.named(self.request.quantize)
            if has not in quantization.UNQUANTIZED:
                raise CreateFailedError("quantization is only supported for F16, BF16 and F32 models")
            # A model that has the wanted type already is treated like any other upload: see the last line.
            if wanted != has:
                return wanted
        if component.layer.media_type == media_types.DRAFT and self.request.draft_quantize:
            wanted = quantization.named(self.request.draft_quantize)
            if has not in quantization.UNQUANTIZED:
                raise CreateFailedError(f"draft quantization requires an unquantized draft model, got {has}")
            return wanted if wanted != has else None
        return COPY if component.needs_rewriting and not self.request.as_is and self.rewriter is not None else None

    def _rewrite(self, component: ModelComponent, source: Path, target: Path, kind: str) -> Iterator[TransferStep]:
        if self.rewriter is None:
            raise CreateFailedError(NO_QUANTIZER)
        phase, status = JobPhase.QUANTIZING, f"quantizing {component.header.file_type} model to {kind}"
        if kind == COPY:
            phase, status = JobPhase.CONVERTING, "rewriting model"
        counts = self._counted(self.rewriter(source, target, kind, self.stopped))
        try:
            yield from _reported(counts, phase, status, source.stat().st_size)
        except RewriteError as error:
            if kind != COPY:
                raise
            # Clients see Ollama's words; the log has llama.cpp's.
            prefix = "failed to validate GGUF with llama-quantize without compatibility patches"
            raise RewriteError(f"{prefix}: {error}") from error
        yield TransferStep(JobPhase.VERIFYING, "verifying conversion")

    def _counted(self, counts: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Yield the counts. Raises CreateFailedError once the creation is stopped."""
        for each in counts:
            if self.stopped():
                raise CreateFailedError("request canceled")
            yield each

    def _write(self, config: Config, entries: list[Entry]) -> Generator[TransferStep, None, frozenset[str]]:
        # Blobs of text are stored only now, so that a creation that fails earlier leaves none.
        stored = [self._stored(entry) for entry in entries]
        data = configs.dumps(config)
        blob = self.store.blobs.add(data, self.shared_locks)
        for entry in stored:
            yield TransferStep(JobPhase.WRITING_LAYERS, entry.status_line)
        yield TransferStep(JobPhase.WRITING_MANIFEST, "writing manifest")
        config_layer = Layer(media_type=media_types.CONFIG, digest=blob.digest, size=blob.size)
        manifest = Manifest(config_layer, tuple(entry.layer for entry in stored))
        # All blobs are stored, locked and flushed at this point.
        return self.store.manifests.replace(self.name, manifests.dumps(manifest))

    def _stored(self, entry: Entry) -> Entry:
        if entry.data is None:
            return entry
        return replace(entry, created=self.store.blobs.add(entry.data, self.shared_locks).created)

    def _read(self, digest: str) -> bytes:
        return self.store.blobs.path(digest).read_bytes()


def _capabilities(base: Config, config: Config) -> tuple[str, ...]:
    """Return the capabilities of a model that is made from another one."""
    # Those of a GGUF model are added to the ones that its files show; those of an opaque model are all that it has.
    return config.capabilities or base.capabilities if base.is_opaque else (*base.capabilities, *config.capabilities)


def _config(request: CreateRequest) -> Config:
    given = overrides.read(request.info)
    return Config(
        model_family=given.model_family,
        model_families=(given.model_family,) if given.model_family else (),
        model_type=given.parameter_size,
        file_type=given.quantization_level,
        renderer=request.renderer,
        parser=request.parser,
        requires=request.requires,
        capabilities=given.capabilities,
        context_length=given.context_length,
        embedding_length=given.embedding_length,
        base_name=given.base_name,
    )


def _is_model(component: ModelComponent) -> bool:
    return component.layer.media_type == media_types.MODEL


def _reported(counts: Iterable[tuple[int, int]], phase: JobPhase, status: str, size: int = 0) -> Iterator[TransferStep]:
    """Yield steps for counts of what is done and of all: bytes, or shares of `size` bytes."""
    reported = time.monotonic()
    for done, total in counts:
        now = time.monotonic()
        # A step for each tensor would flood the client.
        if now - reported >= _PROGRESS_SECONDS:
            reported = now
            yield TransferStep(phase, status, "", size or total, (size or total) * done // max(total, 1))


def _add_projector_type(source: Path, target: Path) -> None:
    with target.open("wb") as file:
        gguf_write.with_text(Part(source, gguf.read(source, arrays=True)), "clip.projector_type", "mlp", file)
