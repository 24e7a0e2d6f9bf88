"""From a name in a request to a model on lease."""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from puna.errors import (
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
from puna.models.name import Reference, Source, parse_reference
from puna.models.store import ModelStore
from puna.models.stored import StoredModel
from puna.options import Options, merge
from puna.runtime.pool import ModelPool
from puna.runtime.requirements import Lease, Loading, Queued, Use
from puna.sandbox.sandbox import Sandbox
from puna.serving.answers import Progress
from puna.serving.requests import RequestOptions
from puna.serving.sampling_options import check_size, wanted
from puna.serving.templates import Forms
from puna.settings import Settings

REMEMBERED: Final = 64
"""How many models are kept as they were read."""
Tell = Callable[[Progress], None]
"""Hears of waiting and loading, before the first event."""


@dataclass(frozen=True, slots=True)
class Found:
    """A model that a request names."""

    sent: str
    """The name as the client wrote it."""
    reference: Reference
    model: StoredModel
    forms: Forms


class Access:
    """Finds models in the store and leases them from the pool."""

    def __init__(self, store: ModelStore, pool: ModelPool, settings: Settings, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        """Runs templates."""
        self._store = store
        self._pool = pool
        self.settings = settings
        self._known: OrderedDict[tuple[str, str], tuple[StoredModel, Forms]] = OrderedDict()
        self._lock = threading.Lock()

    async def find(
        self,
        sent: str,
        *,
        missing: Callable[[], PunaError] = ModelRequiredError,
        unknown: Callable[[str], PunaError] = ModelNotFoundError,
        cloud: str = "remote model is unavailable",
    ) -> Found:
        """Find a model by the name a client wrote. `missing` and `unknown` make errors whose texts differ by method.

        InvalidModelNameError; InvalidRequestError: two suffixes; CloudDisabledError: a cloud model.
        """
        try:
            reference = parse_reference(sent)
        except ModelRequiredError:
            raise missing() from None
        if not reference.name.is_valid:
            raise InvalidModelNameError
        if reference.source is Source.CLOUD:
            raise CloudDisabledError(cloud)
        try:
            model, forms = await asyncio.to_thread(self._get, reference)
        except LookupError:
            await asyncio.to_thread(self._store.check)
            raise unknown(sent) from None
        return Found(sent, reference, model, forms)

    def check_form(self, request: RequestOptions, tools: Sequence[Tool] = ()) -> None:
        """Refuse a form that is too large to be read. `tools`: those of which one must be called."""
        check_size(request, tools, self.settings.limits.max_constraint_bytes)

    def lease(
        self, model: StoredModel, options: Options, request: RequestOptions, tell: Tell, use: Use
    ) -> AbstractAsyncContextManager[Lease]:
        """Lease a model with these options; it is loaded if need be. Errors: see ModelPool.lease."""

        def report(news: Queued | Loading) -> None:
            if isinstance(news, Queued):
                tell(Progress(phase="queued", position=news.position))
            else:
                tell(Progress(phase="loading", fraction=news.fraction))

        return self._pool.lease(
            wanted(model, options, request, self.settings),
            keep_alive=request.keep_alive,
            priority=request.priority,
            report=report,
            use=use,
        )

    async def unload(self, model: StoredModel) -> bool:
        """Have a model go as soon as it is idle; say whether it was loaded."""
        return await self._pool.unload(str(model.model_path)) if model.model_path else False

    def refuse_remote(self, found: Found) -> None:
        """Raise what a stub of a model that runs elsewhere is answered with; nothing runs elsewhere."""
        config = found.model.config
        if not config.is_remote:
            return
        if found.reference.source is Source.LOCAL:
            raise ModelNotFoundError(found.sent)
        host = urlsplit(config.remote_host if "://" in config.remote_host else f"//{config.remote_host}").hostname
        if host not in self.settings.remotes:
            raise InvalidRequestError("this server cannot run this remote model")
        raise CloudDisabledError

    def _get(self, reference: Reference) -> tuple[StoredModel, Forms]:
        """Read a model, or return it as it was read before if its manifest is the same. Blocks."""
        model = self._store.get(self._store.resolve(reference.name))
        key = model.name.full, model.digest
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
                return known
        # What every request asks for is read here, in a thread.
        _ = model.capabilities, model.parameters, model.system, model.messages, model.mode
        with self._lock:
            self._known[key] = model, Forms(model, self.sandbox)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
            return self._known[key]


def options_of(model: StoredModel, request: RequestOptions) -> Options:
    """Merge the defaults, the model's parameters and the request's options. Raises OptionTypeError."""
    return merge(model.parameters, request.values)


def check_logprobs(request: RequestOptions) -> None:
    """Raise InvalidRequestError unless the number of alternatives is in range."""
    if not 0 <= request.top_logprobs <= 20:
        raise InvalidRequestError("top_logprobs must be between 0 and 20")


def thinking_of(found: Found, request: RequestOptions) -> Think | None:
    """Return whether and how hard the model shall think: one that can does, unless told otherwise.

    CapabilityMissingError: it cannot, and the request insists.
    """
    think = request.think
    if "thinking" in found.model.capabilities:
        return think or Think(on=True)
    if think is not None and think.on:
        if not request.think_if_possible:
            raise CapabilityMissingError(f"{quote(found.sent)} does not support thinking")
        return None
    return think


def check_capabilities(found: Found, verb: str, needed: Sequence[str]) -> None:
    """Raise CapabilityMissingError unless the model completes and has what is `needed`. `verb` says what is asked."""
    capabilities = found.model.capabilities
    if "completion" not in capabilities:
        raise CapabilityMissingError(f"{quote(found.sent)} does not support {verb}")
    lacking = [each for each in needed if each not in capabilities]
    if lacking:
        raise CapabilityMissingError(f"{found.model.name.full} does not support {lacking[0]}")
