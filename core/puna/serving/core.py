"""Everything that the core does, in one place for the faces in front of it."""

from collections.abc import AsyncGenerator, Sequence

from puna.models.registry.authorization import identity_of
from puna.models.registry.limits import limits_of
from puna.models.registry.policy import policy_of
from puna.models.registry.registries import Registries
from puna.models.store import ModelStore
from puna.plugins import PluginInfo, Registry
from puna.runtime.pool import ModelPool
from puna.runtime.requirements import LoadedEntry, Use
from puna.sandbox.sandbox import Sandbox
from puna.serving import chat, embed, generate, tokens
from puna.serving.access import Access, Tell, options_of
from puna.serving.activity import Activity
from puna.serving.answers import Embeddings, Event, Progress, Ranking, Tokens
from puna.serving.catalogue import Catalogue
from puna.serving.requests import ChatRequest, EmbedRequest, GenerateRequest, RequestOptions, RerankRequest
from puna.settings import Settings


def unheard(news: Progress) -> None:
    """Hear of progress and do nothing."""


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
        """`backends` are only told of; None: those that are installed.

        `sandbox` runs templates. The caller opens and closes it; without one, workers end with this process.
        """
        self.store = store
        self.pool = pool
        self.settings = settings
        self.activity = Activity()
        self.access = Access(store, pool, settings, sandbox or Sandbox(settings.limits))
        registries = Registries(store, identity_of(settings), limits_of(settings.limits), policy_of(settings))
        self.catalogue = Catalogue(store, registries, self.access.sandbox)
        self._backends = backends

    def generate(self, request: GenerateRequest, tell: Tell = unheard) -> AsyncGenerator[Event]:
        """Complete a prompt: see puna.serving.generate."""
        return generate.generate(self.access, request, tell)

    def chat(self, request: ChatRequest, tell: Tell = unheard) -> AsyncGenerator[Event]:
        """Answer a conversation: see puna.serving.chat."""
        return chat.chat(self.access, request, tell)

    async def embed(self, request: EmbedRequest, tell: Tell = unheard) -> Embeddings:
        """Turn texts into vectors: see puna.serving.embed."""
        return await embed.embed(self.access, request, tell)

    async def tokenize(
        self,
        name: str,
        text: str,
        *,
        add_special: bool = True,
        parse_special: bool = True,
        with_pieces: bool = False,
        options: RequestOptions | None = None,
        tell: Tell = unheard,
    ) -> Tokens:
        """Return a text's tokens: see puna.serving.tokens."""
        return await tokens.tokenize(
            self.access,
            name,
            text,
            add_special=add_special,
            parse_special=parse_special,
            with_pieces=with_pieces,
            options=options or RequestOptions(),
            tell=tell,
        )

    async def detokenize(
        self,
        name: str,
        ids: Sequence[int],
        *,
        special: bool = True,
        options: RequestOptions | None = None,
        tell: Tell = unheard,
    ) -> bytes:
        """Put tokens together: see puna.serving.tokens."""
        return await tokens.detokenize(
            self.access, name, ids, special=special, options=options or RequestOptions(), tell=tell
        )

    async def rerank(self, request: RerankRequest, tell: Tell = unheard) -> Ranking:
        """Order documents: see puna.serving.tokens."""
        return await tokens.rerank(self.access, request, tell)

    async def load(self, name: str, options: RequestOptions | None = None, tell: Tell = unheard) -> LoadedEntry:
        """Load a model and return its entry among the loaded ones. Errors: those of Access.find and ModelPool.lease."""
        asked = options or RequestOptions()
        found = await self.access.find(name)
        self.access.refuse_remote(found)
        merged = options_of(found.model, asked)
        async with self.access.lease(found.model, merged, asked, tell, Use.NOTHING) as lease:
            return next(each for each in self.pool.loaded() if str(each.details.model_path) == lease.key)

    async def unload(self, name: str) -> bool:
        """Have a model go as soon as it is idle; say whether it was loaded. Errors: those of Access.find."""
        found = await self.access.find(name)
        return await self.access.unload(found.model)

    def plugins(self) -> list[PluginInfo]:
        """Tell what backends there are. Imports all of them, so it may block."""
        if self._backends is None:
            self._backends = Registry.discover()
        return self._backends.describe()
