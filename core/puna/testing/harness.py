"""How the contract tests get a loaded model: from a class in this process, or through a host as the server does.

One model serves all tests of a class, because a host takes a second to start. A test that fails leaves nothing behind:
the next one loads the model anew. Tests that need a load of their own use `loaded`.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from puna.backend import Backend, LoadedModel, ModelSpec, Sampling, SequenceRequest, TokenLogprob, UnsupportedError
from puna.plugins import Capabilities, ManifestError, Plugin, Registry, read
from puna.plugins.discovery import described, manifest_of
from puna.settings import Settings
from puna.testing import hosts
from puna.testing.answers import Answer, collect, refused

GREEDY = Sampling(temperature=0.0)
PLAIN = Sampling(temperature=1.0, top_k=0, top_p=1.0)
"""Sampling from the unchanged distribution of the model."""
FREE_SECONDS = 30.0
"""Timeout for freeing the model that the tests share."""
STRONG_BIAS = 1000.0
"""A bias that outweighs every logit of a model."""


@dataclass
class Session:
    """The event loop and the loaded model that the tests of one class share."""

    runner: asyncio.Runner = field(default_factory=asyncio.Runner)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    model: LoadedModel | None = None

    def close(self) -> None:
        """Free the model, and end everything that still runs in the loop."""
        with self.runner:
            self.runner.run(self.free())

    async def free(self) -> None:
        """Free the model. Raises TimeoutError if that does not end."""
        async with asyncio.timeout(FREE_SECONDS):
            await self.stack.aclose()


class ContractBase:
    """What all groups of contract tests share: the settings of an author, and access to a loaded model."""

    backend_class: ClassVar[type[Backend] | None] = None
    """The class to be tested in this process; None: the tests run through a host process."""
    prompt: ClassVar[str] = "Why is the sky blue?"
    """A prompt after which the model generates at least one token, and better two dozen."""
    max_tokens: ClassVar[int] = 24
    seconds: ClassVar[float] = 60.0
    """Timeout of one test."""
    stop_seconds: ClassVar[float] = 5.0
    """Timeout for the end of a cancelled sequence or load."""
    blocked_seconds: ClassVar[float] = 0.25
    """How long the backend may keep the event loop from running other tasks."""
    entry_point: ClassVar[str] = ""
    """The plugin's name, if it is installed: then it is also tested through a host process, as the server runs it."""
    model_format: ClassVar[str] = "gguf"
    manifest: ClassVar[str | Path] = ""
    """The path of the backend's `backend.toml`. Without a class, the tests start the host that it describes, in any
    language. With a class, they only read its capabilities; a manifest in the class's package is found without it."""

    _session: ClassVar[Session | None] = None
    _capabilities: ClassVar[Capabilities | None] = None
    _numbers: ClassVar[Iterator[int]] = itertools.count()

    def spec(self) -> ModelSpec:
        """Return what to load. A small context, of 256 tokens say, makes the tests fast."""
        raise NotImplementedError

    def request(self, **values: Any) -> SequenceRequest:  # noqa: ANN401 (fields of the request)
        """Return a request with these fields."""
        return replace(SequenceRequest(prompt=self.prompt, sampling=GREEDY, max_tokens=self.max_tokens), **values)

    # ---- What the manifest says ----

    @classmethod
    def plugin(cls) -> Plugin | None:
        """Return the backend as its manifest or its installation describes it; None for a class alone."""
        if cls.manifest and cls.backend_class is None:
            return described(Path(cls.manifest))
        if cls.entry_point:
            return Registry.discover(Settings()).get(cls.entry_point)
        return None

    @classmethod
    def capabilities(cls) -> Capabilities | None:
        """Return what the backend declares; None without a manifest: then everything is tried, and may be refused."""
        if "_capabilities" not in cls.__dict__:
            cls._capabilities = cls._read_capabilities()
        return cls._capabilities

    @classmethod
    def _read_capabilities(cls) -> Capabilities | None:
        if cls.backend_class is None:
            return cls.installed().usable.capabilities
        # The manifest beside the class, so that a class can be tested that is not installed.
        module = cls.backend_class.__module__
        try:
            path = Path(cls.manifest) if cls.manifest else manifest_of(module, cls.entry_point)
        except ManifestError:
            return None
        return read(path, python_class=f"{module}:{cls.backend_class.__qualname__}").capabilities

    def obeys(self, parameter: str) -> bool:
        """Return whether the backend obeys a sampling parameter: all of them if it has no manifest."""
        capabilities = self.capabilities()
        return capabilities is None or parameter in capabilities.sampling

    def declares(self, capability: str) -> bool:
        """Return whether the backend's manifest declares a capability. What it declares, it may not refuse."""
        capabilities = self.capabilities()
        if capabilities is None:
            return False
        listed = capability in capabilities.constraints or capability in capabilities.sampling
        return listed or getattr(capabilities, capability, False) is True

    def check_may_lack(self, capability: str) -> None:
        """Check that a capability which was refused is not declared."""
        assert not self.declares(capability), f"{capability} is declared in the manifest, but refused"

    # ---- Loaded models ----

    @property
    def through_host(self) -> bool:
        """Whether the tests run through a host process."""
        return self.backend_class is None

    @classmethod
    def installed(cls) -> Plugin:
        """Return the backend whose host is started."""
        plugin = cls.plugin()
        assert plugin is not None, "set manifest or entry_point"
        assert not plugin.error, plugin.error
        return plugin

    @asynccontextmanager
    async def loaded(self, **changes: Any) -> AsyncIterator[LoadedModel]:  # noqa: ANN401 (fields of the spec)
        """Load the model, with these fields of the spec changed, and free it at the end."""
        spec = replace(self.spec(), **changes)
        if self.backend_class is None:
            async with hosts.hosted(self.installed(), spec) as model:
                yield model
            return
        backend = self.backend_class()
        try:
            model = await backend.load(spec, lambda _: None)
            try:
                yield model
            finally:
                await model.aclose()
        finally:
            await backend.aclose()

    def run(self, test: Callable[[LoadedModel], Coroutine[Any, Any, None]]) -> None:
        """Run a test of generating. A model that does not generate must refuse to."""

        async def generating(model: LoadedModel) -> None:
            if model.facts.generates:
                await test(model)
            else:
                error = await refused(model, self.request())
                assert isinstance(error, UnsupportedError), f"facts.generates is False, but generate gave {error!r}"

        self.run_any(generating)

    def run_any(self, test: Callable[[LoadedModel], Coroutine[Any, Any, None]]) -> None:
        """Run a test with the loaded model that the tests of this class share."""
        cls = type(self)
        # Not inherited: a class that derives from another one loads its own model.
        session = cls.__dict__.get("_session")
        if session is None:
            session = cls._session = Session()

        async def limited() -> None:
            async with asyncio.timeout(self.seconds):
                if session.model is None:
                    session.model = await session.stack.enter_async_context(self.loaded())
                await test(session.model)

        try:
            session.runner.run(limited())
        except BaseException:
            # The test may have left the model in any state.
            self.teardown_class()
            raise

    def run_alone(self, test: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a test that loads what it needs."""

        async def limited() -> None:
            async with asyncio.timeout(self.seconds):
                await test()

        asyncio.run(limited())

    @classmethod
    def teardown_class(cls) -> None:
        """Free the model that the tests of this class share. pytest calls it after the last one."""
        session = cls.__dict__.get("_session")
        cls._session = None
        if session is not None:
            session.close()

    # ---- What several tests need ----

    def salt(self) -> str:
        """Return a salt that no sequence has used, so that nothing of a prompt is cached."""
        return f"salt {next(self._numbers)}"

    def prompts(self, count: int) -> list[str]:
        """Return prompts that differ from each other."""
        return [f"{self.prompt} {number}{'.' * (number % 3)}" for number in range(count)]

    async def tokens_of(self, model: LoadedModel, text: str) -> list[int]:
        """Return the tokens of a text as a prompt has them."""
        return await model.tokenize(text, add_special=True, parse_special=True)

    async def long_prompt(self, model: LoadedModel, more: int) -> tuple[int, ...]:
        """Return as many tokens as the context has, plus `more`, which may be negative."""
        tokens = await model.tokenize(self.prompt, add_special=False, parse_special=False)
        length = max(model.facts.context_length + more, 1)
        return tuple((tokens * (length // len(tokens) + 1))[:length])

    async def with_logprobs(self, model: LoadedModel, request: SequenceRequest, top: int) -> Answer | None:
        """Return an answer with log-probabilities; None if the backend refuses them, which it may."""
        try:
            return await collect(model, replace(request, top_logprobs=top))
        except UnsupportedError:
            return None

    async def output_bytes(self, model: LoadedModel, logprobs: Sequence[TokenLogprob]) -> bytes:
        """Return the bytes that tokens add to the text: nothing for special tokens."""
        ids = token_ids(logprobs)
        if model.facts.tokenizer and min(ids, default=-1) >= 0:
            return b"".join(await model.detokenize(ids, special=False))
        return b"".join(each.raw for each in logprobs)

    async def takes_bias(self, model: LoadedModel) -> bool:
        """Return whether the backend takes a logit_bias. It must refuse one that it would ignore."""
        if not (self.obeys("logit_bias") and model.facts.tokenizer):
            return False
        tokens = await self.plain_tokens(model, 2)
        if len(tokens) < 2:
            return False
        bias = replace(GREEDY, logit_bias={tokens[0][0]: 1.0})
        error = await refused(model, self.request(sampling=bias, max_tokens=1))
        if error is not None:
            self.check_may_lack("logit_bias")
        return error is None

    async def plain_tokens(self, model: LoadedModel, count: int) -> list[tuple[int, str]]:
        """Return tokens of printable ASCII that are not in the prompt, each with its text. The texts are distinct.

        The prompt may hold any token, so fewer than `count` are returned if the vocabulary has no more.
        """
        avoided = set(await self.tokens_of(model, self.prompt))
        found: dict[str, int] = {}
        for text in ("xylophone zebra quartz jumble 0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "#$%&()*+;<=>@[]{}~"):
            tokens = await model.tokenize(text, add_special=False, parse_special=False)
            for token, raw in zip(tokens, await model.detokenize(tokens, special=False), strict=True):
                written = raw.decode("ascii", "replace")
                if token not in avoided and written.strip() == written and written.isprintable() and written:
                    found.setdefault(written, token)
        return [(token, text) for text, token in found.items()][:count]


def token_ids(logprobs: Sequence[TokenLogprob]) -> list[int]:
    """Return the ids of tokens."""
    return [each.token_id for each in logprobs]
