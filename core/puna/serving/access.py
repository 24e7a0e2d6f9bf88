"""Access to models: from the name in a request to a leased model, and the checks that several requests share.

Models are cached as they were read from the store, by name and manifest digest: a changed manifest has another digest,
so an entry never becomes stale.
"""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

from puna import events
from puna.auth.caller import current
from puna.errors import (
    BackendNotFoundError,
    CapabilityMissingError,
    CloudDisabledError,
    InvalidModelNameError,
    InvalidRequestError,
    ModelNotFoundError,
    ModelRequiredError,
    PunaError,
)
from puna.go.json import quote
from puna.messages import Think, Tool
from puna.model_name import Reference, Source, parse_reference
from puna.models.store import ModelStore
from puna.models.stored import StoredModel
from puna.options import Options
from puna.plugins import Manifest, Registry
from puna.runtime.estimates import ModelEstimate
from puna.runtime.pool import ModelPool
from puna.runtime.requirements import Lease, LeaseKind, Loading, Queued
from puna.sandbox.sandbox import Sandbox
from puna.serving.aliases import resolved
from puna.serving.answers import Progress
from puna.serving.lease_stages import LeaseStages
from puna.serving.offered_models import OfferedModels
from puna.serving.requests import BACKGROUND_PRIORITY, RequestOptions
from puna.serving.sampling_options import check_size, merged_options, model_requirements
from puna.serving.sequence_runner import translating_errors
from puna.serving.templates import ModelTemplates
from puna.settings import Settings

CACHED_MODELS: Final = 64
"""Number of models whose parsed files are kept in memory."""
OnProgress = Callable[[Progress], None]
"""Called with the progress of queueing and loading, before the first event."""


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """The model that a request names."""

    requested_name: str
    """The name as the client wrote it."""
    reference: Reference
    model: StoredModel
    templates: ModelTemplates
    backend: Manifest | None = None
    """The backend that would serve the model; None if there is none, which a load reports."""

    @property
    def takes_messages(self) -> bool:
        """Whether the backend takes messages, so that nothing is rendered or parsed here."""
        return self.backend is not None and self.backend.capabilities.chat


class Access:
    """Finds models in the store and leases them from the pool."""

    def __init__(
        self,
        store: ModelStore,
        pool: ModelPool,
        settings: Settings,
        sandbox: Sandbox,
        backends: Registry,
        offered_models: OfferedModels,
    ) -> None:
        self.sandbox = sandbox
        """Runs templates in worker processes."""
        self._backends = backends
        self._offered_models = offered_models
        self._store = store
        self._pool = pool
        self.settings = settings
        self._known: OrderedDict[tuple[str, str], tuple[StoredModel, ModelTemplates]] = OrderedDict()
        self._lock = threading.Lock()

    async def find(
        self,
        sent: str,
        *,
        missing: Callable[[], PunaError] = ModelRequiredError,
        unknown: Callable[[str], PunaError] = ModelNotFoundError,
        cloud: str = "remote model is unavailable",
    ) -> ResolvedModel:
        """Find a model by the name that a client wrote.

        `missing` and `unknown` make the errors for an empty and an unknown name, whose texts differ between methods.
        Raises InvalidModelNameError, InvalidRequestError for two suffixes, and CloudDisabledError for a cloud model.
        """
        try:
            reference = parse_reference(sent)
        except ModelRequiredError:
            # Ollama's endpoints answer an empty name with different texts.
            raise missing() from None
        reference, alias = await resolved(reference, self.settings.model_settings, self._store)
        if not reference.name.is_valid:
            # The name of an offered model may have more parts than that of a model of the store.
            offered = await self._offered(sent, reference, alias)
            if offered is None:
                raise unknown(sent) if self._offered_models.owns(reference.base) else InvalidModelNameError
            return offered
        current().check_model(reference.name.shortest, alias)
        # The suffix :cloud asks for Ollama's cloud, which this server never calls.
        if reference.source is Source.CLOUD:
            raise CloudDisabledError(cloud)
        try:
            model, templates = await asyncio.to_thread(self._get, reference)
        except LookupError:
            if (offered := await self._offered(sent, reference, alias)) is not None:
                return offered
            # A store that cannot be read must not look like one without the model.
            await asyncio.to_thread(self._store.check)
            raise unknown(sent) from None
        return ResolvedModel(sent, reference, model, templates, self._backend(model))

    async def _offered(self, sent: str, reference: Reference, alias: str) -> ResolvedModel | None:
        """Return the model of this name that a backend offers; None if there is none.

        `alias` is the name that an error shows; empty: that of the model.
        """
        if reference.source is Source.CLOUD or (model := await self._offered_models.find(reference.base)) is None:
            return None
        current().check_model(model.name.shortest, alias)
        return ResolvedModel(sent, reference, model, ModelTemplates(model, self.sandbox), self._backend(model))

    def options_of(self, model: StoredModel, request: RequestOptions) -> Options:
        """Return the merged options of a request. Raises OptionTypeError and OptionRangeError."""
        return merged_options(model, request, self.settings)

    def check_constraint_size(self, request: RequestOptions, tools: Sequence[Tool] = ()) -> None:
        """Raise UnsupportedConstraintError for a constraint that is too large.

        `tools` are the tools of which one must be called, since their schemas become a constraint.
        """
        check_size(request, tools, self.settings.limits.max_constraint_bytes)

    def lease(
        self, model: StoredModel, options: Options, request: RequestOptions, on_progress: OnProgress, kind: LeaseKind
    ) -> AbstractAsyncContextManager[Lease]:
        """Lease a model with these options, loading it if needed. Raises what ModelPool.lease raises."""
        observed = events.wanted(events.StageEnded) or events.wanted(events.ModelLeased)
        stages = LeaseStages(model.name.shortest) if observed else None

        def report(progress: Queued | Loading) -> None:
            if stages is not None:
                stages.on_progress(progress)
            if isinstance(progress, Queued):
                on_progress(Progress(phase="queued", position=progress.position))
            else:
                on_progress(
                    Progress(
                        phase="loading",
                        fraction=progress.fraction,
                        done_bytes=progress.done_bytes,
                        total_bytes=progress.total_bytes,
                    )
                )

        if request.priority == BACKGROUND_PRIORITY and kind is not LeaseKind.LOAD_ONLY:
            kind = LeaseKind.BACKGROUND
        lease = self._pool.lease(
            model_requirements(model, options, request, self.settings),
            keep_alive=request.keep_alive,
            priority=request.priority,
            on_progress=report,
            kind=kind,
        )
        return lease if stages is None else stages.observing(lease)

    async def estimate(
        self, model: StoredModel, options: Options, request: RequestOptions, *, slots: int, kv_cache_type: str
    ) -> ModelEstimate:
        """Estimate the memory of a model with these options, without loading it. Raises what ModelPool.estimate raises.

        `slots` and `kv_cache_type` replace those of the settings, unless they are 0 or empty.
        """
        requirements = model_requirements(model, options, request, self.settings)
        spec = requirements.spec
        spec = replace(spec, parallel=slots or spec.parallel, kv_cache_type=kv_cache_type or spec.kv_cache_type)
        with translating_errors():
            return await self._pool.estimate(replace(requirements, spec=spec))

    def _backend(self, model: StoredModel) -> Manifest | None:
        """Return the manifest of the backend that would serve a model; None if there is none that can be used."""
        config = model.config
        try:
            name = self._backends.for_model(config.format, model.wanted_backend, self.settings.default_backend)
            return self._backends.get(name).manifest
        except BackendNotFoundError:
            return None

    async def unload(self, model: StoredModel) -> bool:
        """Free a model as soon as it is idle; return whether it was loaded."""
        return await self._pool.unload(model.load_key)

    def pin(self, model: StoredModel, pinned: bool) -> bool | None:
        """Pin a loaded model, or end such a pin; return whether it is pinned now. None: it is not loaded."""
        return self._pool.pin(model.load_key, pinned)

    def refuse_remote(self, found: ResolvedModel) -> None:
        """Raise an error if the model is the stub of a remote model, since this server calls no remote server."""
        config = found.model.config
        if not config.is_remote:
            return
        # The suffix :local asks for weights on this machine, which a stub does not have.
        if found.reference.source is Source.LOCAL:
            raise ModelNotFoundError(found.requested_name)
        host = urlsplit(config.remote_host if "://" in config.remote_host else f"//{config.remote_host}").hostname
        # As in Ollama, a host that the operator has not listed is refused with a text of its own.
        if host not in self.settings.remotes:
            raise InvalidRequestError("this server cannot run this remote model")
        raise CloudDisabledError

    def _get(self, reference: Reference) -> tuple[StoredModel, ModelTemplates]:
        """Return a model from the cache, or read it from the store. Blocks."""
        model = self._store.get(self._store.resolve(reference.name))
        key = model.name.full, model.digest
        # Lookups run in threads. Two may read one model at once; the second result then replaces the first.
        # The digest in the key makes the cache right without invalidation; the store is still asked for each request,
        # because a name may have moved to another digest.
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
                return known
        # These properties read files, and every request uses them: read them here, in a thread.
        _ = model.capabilities, model.parameters, model.system, model.messages, model.mode
        with self._lock:
            self._known[key] = model, ModelTemplates(model, self.sandbox)
            # One insertion adds at most one entry, so dropping the least recently used one keeps the bound.
            if len(self._known) > CACHED_MODELS:
                self._known.popitem(last=False)
            return self._known[key]


def check_logprobs(request: RequestOptions) -> None:
    """Raise InvalidRequestError unless the number of alternatives is in range."""
    # Ollama checks this before it looks up the model, with this text.
    if not 0 <= request.top_logprobs <= 20:
        raise InvalidRequestError("top_logprobs must be between 0 and 20", field="options.top_logprobs")


def thinking_of(found: ResolvedModel, request: RequestOptions) -> Think | None:
    """Return whether and how hard the model thinks. A model that can think does so unless the request says otherwise.

    Raises CapabilityMissingError if the model cannot think and the request demands it.
    """
    think = request.think
    # As in Ollama, silence means thinking: only `think: false` turns it off.
    if "thinking" in found.model.capabilities:
        return think or Think(on=True)
    if think is not None and think.on:
        if not request.think_if_possible:
            raise CapabilityMissingError(
                f"{quote(found.requested_name)} does not support thinking", capability="thinking"
            )
        return None
    # Thinking is off, which every model can do.
    return think


def check_capabilities(found: ResolvedModel, verb: str, needed: Sequence[str]) -> None:
    """Raise CapabilityMissingError unless the model completes text and has the `needed` capabilities.

    `verb` names the operation in the error text.
    """
    capabilities = found.model.capabilities
    # The two texts name the model differently, the first as the client wrote it and the second in full. Clients of
    # Ollama see the same.
    if "completion" not in capabilities:
        raise CapabilityMissingError(f"{quote(found.requested_name)} does not support {verb}", capability="completion")
    lacking = [each for each in needed if each not in capabilities]
    if lacking:
        raise CapabilityMissingError(f"{found.model.name.full} does not support {lacking[0]}", capability=lacking[0])
