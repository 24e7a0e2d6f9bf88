"""The core's operations in one object, for the gRPC servicers in front of it.

Serving forwards the operations that run on a model to their modules and adds nothing to them: it only holds what they
share. Servicers use four parts of it directly: `catalogue` (the models of the store), `activity` (the requests under
way), `blobs` (for uploads) and `settings`. The pool and the store are private.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace

from puna import events
from puna.auth.caller import current
from puna.configuration import Adopted
from puna.errors import InvalidRequestError
from puna.models.progress import TransferStep
from puna.models.registry.authorization import identity_of
from puna.models.registry.limits import limits_of
from puna.models.registry.policy import policy_of
from puna.models.registry.registries import Registries
from puna.models.storage.blobs import BlobStore
from puna.models.store import ModelStore
from puna.models.upkeep.report import Finding, Report
from puna.plugins import Plugin, Registry
from puna.runtime.estimates import ModelEstimate
from puna.runtime.launcher import NodeStatus
from puna.runtime.pool import ModelPool
from puna.runtime.requirements import LeaseKind, LoadedEntry
from puna.sandbox.sandbox import Sandbox
from puna.serving import chat, embed, generate, rank, score, tokens, upkeep
from puna.serving.access import Access, OnProgress
from puna.serving.activity import Activity
from puna.serving.answers import Embeddings, Event, Progress, Ranking, Scores, Tokens
from puna.serving.catalogue import Catalogue
from puna.serving.load_meter import Occupancy
from puna.serving.offered_models import OfferedModels
from puna.serving.requests import (
    ChatRequest,
    EmbedRequest,
    GenerateRequest,
    RequestOptions,
    RerankRequest,
    ScoreRequest,
)
from puna.serving.upkeep import ImportEvent, ImportRequest
from puna.settings import Settings


def ignore_progress(progress: Progress) -> None:
    """Ignore progress."""


class Serving:
    """Answers requests out of a store of models and a pool of loaded ones, which the caller opens and closes."""

    def __init__(
        self,
        store: ModelStore,
        pool: ModelPool,
        settings: Settings,
        backends: Registry | None = None,
        sandbox: Sandbox | None = None,
    ) -> None:
        """`backends` are listed by `plugins` and searched for a quantizer; None means the installed ones.

        `sandbox` runs templates. The caller opens and closes it; without one, its workers end with this process.
        """
        self._store = store
        self._pool = pool
        self.settings = settings
        self.activity = Activity()
        self.metrics: Callable[[], bytes] | None = None
        """Returns the metrics in Prometheus's text format; None if they are off."""
        self.reload: Callable[[], Awaitable[Adopted]] | None = None
        """Reads the configuration again; None if this server reads none. Raises ConfigurationInvalidError."""
        self._backends = backends or Registry.discover(settings)
        offered = OfferedModels(store, pool.upstream_models)
        self.access = Access(store, pool, settings, sandbox or Sandbox(settings.limits), self._backends, offered)
        registries = Registries(store, identity_of(settings), limits_of(settings.limits), policy_of(settings))
        self.catalogue = Catalogue(store, registries, self.access.sandbox, self._backends.quantizer, offered, settings)

    def generate(self, request: GenerateRequest, on_progress: OnProgress = ignore_progress) -> AsyncGenerator[Event]:
        """Complete a prompt. See puna.serving.generate."""
        events.publish(events.RequestRead(request))
        return generate.generate(self.access, request, on_progress)

    def chat(self, request: ChatRequest, on_progress: OnProgress = ignore_progress) -> AsyncGenerator[Event]:
        """Answer a conversation. See puna.serving.chat."""
        events.publish(events.RequestRead(request))
        return chat.chat(self.access, request, on_progress)

    async def embed(self, request: EmbedRequest, on_progress: OnProgress = ignore_progress) -> Embeddings:
        """Embed texts. See puna.serving.embed."""
        events.publish(events.RequestRead(request))
        return await embed.embed(self.access, request, on_progress)

    async def tokenize(
        self,
        name: str,
        text: str,
        *,
        add_special: bool = True,
        parse_special: bool = True,
        with_pieces: bool = False,
        options: RequestOptions | None = None,
        on_progress: OnProgress = ignore_progress,
    ) -> Tokens:
        """Return the tokens of a text. See puna.serving.tokens."""
        return await tokens.tokenize(
            self.access,
            name,
            text,
            add_special=add_special,
            parse_special=parse_special,
            with_pieces=with_pieces,
            options=options or RequestOptions(),
            on_progress=on_progress,
        )

    async def detokenize(
        self,
        name: str,
        ids: Sequence[int],
        *,
        special: bool = True,
        options: RequestOptions | None = None,
        on_progress: OnProgress = ignore_progress,
    ) -> bytes:
        """Return the text of tokens. See puna.serving.tokens."""
        return await tokens.detokenize(
            self.access, name, ids, special=special, options=options or RequestOptions(), on_progress=on_progress
        )

    async def rerank(self, request: RerankRequest, on_progress: OnProgress = ignore_progress) -> Ranking:
        """Rank documents by relevance. See puna.serving.rank."""
        events.publish(events.RequestRead(request))
        return await rank.rerank(self.access, request, on_progress)

    async def score(self, request: ScoreRequest, on_progress: OnProgress = ignore_progress) -> Scores:
        """Score continuations of a context. See puna.serving.score."""
        events.publish(events.RequestRead(request))
        return await score.score(self.access, request, on_progress)

    async def load(
        self, name: str, options: RequestOptions | None = None, on_progress: OnProgress = ignore_progress
    ) -> LoadedEntry:
        """Load a model and return its row in the list of loaded models.

        Raises what Access.find and ModelPool.lease raise.
        """
        asked = options or RequestOptions()
        found = await self.access.find(name)
        # A stub has no file to load, and its own error explains that better than a failed load.
        self.access.refuse_remote(found)
        merged = self.access.options_of(found.model, asked)
        async with self.access.lease(found.model, merged, asked, on_progress, LeaseKind.LOAD_ONLY) as lease:
            # The loaded model may have another name, so its key identifies it. The lease keeps it in the list.
            return next(each for each in self._pool.loaded() if each.details.load_key == lease.key)

    async def estimate(
        self, name: str, options: RequestOptions | None = None, *, slots: int = 0, kv_cache_type: str = ""
    ) -> ModelEstimate:
        """Estimate the memory that a load with these options would take.

        `slots` and `kv_cache_type` replace those of the settings, unless they are 0 or empty. Raises
        InvalidRequestError if `slots` is below 0, and what Access.find and Access.estimate raise.
        """
        if slots < 0:
            raise InvalidRequestError("slots must be at least 0", field="slots")
        asked = options or RequestOptions()
        found = await self.access.find(name)
        self.access.refuse_remote(found)
        merged = self.access.options_of(found.model, asked)
        estimate = await self.access.estimate(found.model, merged, asked, slots=slots, kv_cache_type=kv_cache_type)
        # Models that the caller may not see are evicted all the same, but not named.
        sees = current().sees
        return replace(estimate, evicted=tuple(each for each in estimate.evicted if sees(each.name)))

    async def unload(self, name: str) -> bool:
        """Free a model as soon as it is idle; return whether it was loaded. Raises what Access.find raises."""
        found = await self.access.find(name)
        return await self.access.unload(found.model)

    async def pin(self, name: str, pinned: bool) -> bool | None:
        """Pin a loaded model, or end such a pin; return whether it is pinned now, and None if it is not loaded.

        Raises what Access.find raises.
        """
        found = await self.access.find(name)
        return self.access.pin(found.model, pinned)

    def loaded(self) -> list[LoadedEntry]:
        """Return the loaded models. The model that expires last comes first."""
        sees = current().sees
        return [each for each in self._pool.loaded() if sees(each.name)]

    async def is_loaded(self, name: str) -> bool:
        """Return whether a model is loaded and takes requests. Raises what Access.find raises."""
        found = await self.access.find(name)
        return self._pool.accepts(found.model.load_key)

    def waiting_for_load(self) -> int:
        """Return how many requests wait for a model to be loaded."""
        return self._pool.waiting()

    def nodes(self) -> Sequence[NodeStatus]:
        """Return the machines other than this one that run hosts."""
        return self._pool.nodes()

    def occupancy(self) -> Occupancy:
        """Return how full the loaded models are.

        All models count, also those that the caller may not see: balancers ask for the server.
        """
        loaded = self._pool.loaded()
        return Occupancy(
            slots=sum(each.slots for each in loaded),
            active=sum(each.active for each in loaded),
            queued=sum(each.queued for each in loaded) + self._pool.waiting(),
            tokens=self.activity.tokens,
            most_tokens=sum(each.slots * each.context_length for each in loaded),
        )

    def import_models(self, request: ImportRequest) -> AsyncGenerator[ImportEvent]:
        """Make models of files on the server's disk. See puna.serving.upkeep."""
        return upkeep.import_models(self._store, request)

    def check_store(self, *, repair: bool, quick: bool) -> AsyncGenerator[TransferStep | Finding | Report]:
        """Check the whole store, and repair it if asked. See puna.serving.upkeep."""
        return upkeep.check_store(self._store, repair=repair, quick=quick)

    def check_readable(self) -> None:
        """Raise OSError if the store cannot be read. Blocks."""
        self._store.check()

    @property
    def blobs(self) -> BlobStore:
        """The store's blobs, to which clients upload."""
        return self._store.blobs

    def plugins(self) -> list[Plugin]:
        """Return all backends, including those that cannot be used. Reads the disk if something has changed."""
        self._backends.refresh()
        return self._backends.describe()
