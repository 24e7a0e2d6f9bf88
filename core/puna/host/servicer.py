"""The gRPC servicer of a host: the backend contract over the wire, for one model or for all models of a backend."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, NoReturn, TypeVar

import grpc

from puna.backend import CONTRACT_VERSION, Backend, DocumentScores, LoadedModel, ModelFacts
from puna.backend.metadata import enter_request
from puna.backend.v1 import backend_pb2 as wire
from puna.backend.v1 import backend_pb2_grpc
from puna.blocking import retrieve_exception
from puna.host import convert
from puna.host.convert_memory import estimate_to_wire
from puna.host.models import Models
from puna.host.plugin_call import Raised, Work, attempt, check_embeddings
from puna.host.report import LoadProgress, report_error
from puna.host.sequences import Sequences

T = TypeVar("T")
R = TypeVar("R")

CODES = {
    wire.Failure.KIND_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    wire.Failure.KIND_CONTEXT_OVERFLOW: grpc.StatusCode.INVALID_ARGUMENT,
    wire.Failure.KIND_UNSUPPORTED: grpc.StatusCode.UNIMPLEMENTED,
    # Not UNAVAILABLE, which tells the core that the host itself is gone.
    wire.Failure.KIND_UNAVAILABLE: grpc.StatusCode.ABORTED,
}
SLICE = 64
"""Texts or vectors that are converted in one turn of the loop; heartbeats and deltas are sent between the turns."""
SHORT = 200
"""Characters of an error in the status message; the Failure has the full text."""


class BackendServicer(backend_pb2_grpc.BackendServiceServicer):
    """Serves the models of a host. `aclose` frees them.

    The streaming methods are coroutines that write messages, which the generated types do not know. As generators they
    would be left to the garbage collector when the call is cancelled between two messages.
    """

    def __init__(self, make_backend: Callable[[], Backend]) -> None:
        """`make_backend` imports the plugin; it is called in a thread, when it is first needed."""
        self._make_backend = make_backend
        self._backend: Backend | None = None
        self._making = asyncio.Lock()
        self.models = Models()
        self._step_fails = False
        self._usage_fails = False
        self.work = Work()
        """The calls and the sequences of all streams."""

    async def aclose(self) -> None:
        """Free the models, and then the backend."""
        await self.models.free_all()
        backend, self._backend = self._backend, None
        if backend is not None and isinstance(raised := await attempt(backend.aclose), Raised):
            report_error("the backend failed to end", raised.error)

    async def Describe(
        self,
        request: wire.DescribeRequest,  # noqa: ARG002
        context: grpc.aio.ServicerContext[wire.DescribeRequest, wire.DescribeResponse],  # noqa: ARG002
    ) -> wire.DescribeResponse:
        """Answer with the version of the contract that this host speaks, and with what its Run can do."""
        return wire.DescribeResponse(contract_version=CONTRACT_VERSION, embeds_in_run=True)

    async def ListModels(
        self,
        request: wire.ListModelsRequest,
        context: grpc.aio.ServicerContext[wire.ListModelsRequest, wire.ListModelsResponse],
    ) -> wire.ListModelsResponse:
        """List the models that the backend offers."""
        options = json.loads(request.backend_options_json or "{}")
        return wire.ListModelsResponse(models=await self._attempt(lambda: self._list_models(options), context))

    async def _list_models(self, options: Mapping[str, object]) -> list[wire.UpstreamModel]:
        backend = await self._made_backend()
        # Written here, so that an answer of another type counts as the plugin's error.
        return [
            wire.UpstreamModel(name=each.name, capabilities=each.capabilities, context_length=each.context_length)
            for each in await backend.models(options)
        ]

    async def _made_backend(self) -> Backend:
        """Return the backend, which is made at the first call. Raises what importing it raises."""
        async with self._making:
            if self._backend is None:
                # Importing a plugin may take seconds, and the heartbeat must be answered meanwhile.
                made = await asyncio.to_thread(self._import)
                if isinstance(made, Raised):
                    raise made.error
                self._backend = made
            return self._backend

    def _import(self) -> Backend | Raised:
        """Make the backend, in a thread. A module may raise anything, and asyncio cannot pass on StopIteration."""
        try:
            return self._make_backend()
        except BaseException as error:  # a plugin may raise anything
            return Raised(error)

    async def Unload(
        self,
        request: wire.UnloadRequest,
        context: grpc.aio.ServicerContext[wire.UnloadRequest, wire.UnloadResponse],  # noqa: ARG002
    ) -> wire.UnloadResponse:
        """Free a model of a shared host. A model that is not there, since its load was given up, is freed already."""
        await self.models.free(request.model_id)
        return wire.UnloadResponse()

    async def Load(  # type: ignore[override]
        self, request: wire.LoadRequest, context: grpc.aio.ServicerContext[wire.LoadRequest, wire.LoadResponse]
    ) -> None:
        """Load a model. Cancelling the call cancels the loading."""
        if request.model_id in self.models:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "a model is loaded already")
        loop = asyncio.get_running_loop()
        fractions: asyncio.Queue[float | None] = asyncio.Queue()
        progress = LoadProgress(loop.call_soon_threadsafe, fractions.put_nowait)
        loading = asyncio.create_task(attempt(lambda: self._load(request, progress.report)))
        loading.add_done_callback(retrieve_exception)
        # The end goes through the same queue as the fractions, so none of them is lost.
        loading.add_done_callback(lambda _: fractions.put_nowait(None))
        try:
            while (fraction := await fractions.get()) is not None:
                await context.write(wire.LoadResponse(fraction=fraction))
        finally:
            loading.cancel()
            await asyncio.wait({loading})
        loaded = loading.result()
        if isinstance(loaded, Raised):
            await _fail(loaded.error, context, f" of {request.name}" if request.model_id else "")
        await context.write(wire.LoadResponse(loaded=loaded))

    async def _load(self, request: wire.LoadRequest, report: Callable[[float], None]) -> wire.Loaded:
        """Load the model and return its facts. Raises whatever the plugin raises."""
        backend = await self._made_backend()
        model = await backend.load(convert.spec_from_wire(request), report)
        if not isinstance(model, LoadedModel):
            raise TypeError(f"load must return a LoadedModel, and it returned a {type(model).__name__}")
        try:
            if not isinstance(facts := model.facts, ModelFacts):
                raise TypeError(f"facts must be a ModelFacts, and it is a {type(facts).__name__}")
            loaded = convert.facts_to_wire(facts)
        except BaseException:
            await model.aclose()
            raise
        self.models.add(request.model_id, model, request.name)
        return loaded

    async def EstimateMemory(
        self,
        request: wire.EstimateMemoryRequest,
        context: grpc.aio.ServicerContext[wire.EstimateMemoryRequest, wire.EstimateMemoryResponse],
    ) -> wire.EstimateMemoryResponse:
        """Estimate the memory that a load would take."""
        return await self._attempt(lambda: self._estimate(request.load), context)

    async def _estimate(self, request: wire.LoadRequest) -> wire.EstimateMemoryResponse:
        backend = await self._made_backend()
        # Written here, so that an answer of another type counts as the plugin's error.
        return estimate_to_wire(await backend.estimate_memory(convert.spec_from_wire(request)))

    async def Run(  # type: ignore[override]
        self,
        request_iterator: AsyncIterator[wire.RunRequest],
        context: grpc.aio.ServicerContext[wire.RunRequest, wire.RunResponse],
    ) -> None:
        """Run sequences until the core closes the stream."""
        if not self.models:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no model is loaded")
        sequences = Sequences(self.models, self.work)
        async with aclosing(sequences.responses(request_iterator)) as responses:
            async for response in responses:
                await context.write(response)

    async def Embed(
        self, request: wire.EmbedRequest, context: grpc.aio.ServicerContext[wire.EmbedRequest, wire.EmbedResponse]
    ) -> wire.EmbedResponse:
        """Embed texts."""

        async def embed(model: LoadedModel) -> wire.EmbedResponse:
            inputs = await sliced(request.inputs, convert.input_from_wire)
            embeddings = check_embeddings(await model.embed(inputs, raw=request.raw))
            return wire.EmbedResponse(embeddings=await sliced(embeddings, convert.embedding_to_wire))

        return await self._answer(embed, request.model_id, context)

    async def Rerank(
        self, request: wire.RerankRequest, context: grpc.aio.ServicerContext[wire.RerankRequest, wire.RerankResponse]
    ) -> wire.RerankResponse:
        """Score documents."""

        async def rerank(model: LoadedModel) -> wire.RerankResponse:
            found = await model.rerank(request.query, tuple(request.documents))
            if not isinstance(found, DocumentScores):
                raise TypeError("rerank must return DocumentScores")
            # Not the value itself: protobuf reads None as an empty list.
            return wire.RerankResponse(scores=list(found.scores), token_count=found.token_count)

        return await self._answer(rerank, request.model_id, context)

    async def Tokenize(
        self,
        request: wire.TokenizeRequest,
        context: grpc.aio.ServicerContext[wire.TokenizeRequest, wire.TokenizeResponse],
    ) -> wire.TokenizeResponse:
        """Tokenize a text."""

        async def tokenize(model: LoadedModel) -> wire.TokenizeResponse:
            special = {"add_special": request.add_special, "parse_special": request.parse_special}
            return wire.TokenizeResponse(token_ids=list(await model.tokenize(request.text, **special)))

        return await self._answer(tokenize, request.model_id, context)

    async def Detokenize(
        self,
        request: wire.DetokenizeRequest,
        context: grpc.aio.ServicerContext[wire.DetokenizeRequest, wire.DetokenizeResponse],
    ) -> wire.DetokenizeResponse:
        """Return the bytes of tokens."""

        async def detokenize(model: LoadedModel) -> wire.DetokenizeResponse:
            pieces = await model.detokenize(tuple(request.token_ids), special=request.special)
            return wire.DetokenizeResponse(pieces=list(pieces))

        return await self._answer(detokenize, request.model_id, context)

    async def Heartbeat(
        self,
        request: wire.HeartbeatRequest,
        context: grpc.aio.ServicerContext[wire.HeartbeatRequest, wire.HeartbeatResponse],  # noqa: ARG002
    ) -> wire.HeartbeatResponse:
        """Answer with the step number of the model's work."""
        step = self._step(request.model_id)
        # Without step numbers, the events and ends of the work count as steps, so that work which yields nothing hangs.
        of_model = request.model_id if request.model_id in self.models else None
        step = self.work.oldest_step(of_model) if step is None else step
        return wire.HeartbeatResponse(step=step, kv_caches=self._kv_caches())

    def _kv_caches(self) -> list[wire.KvCacheUsage]:
        """Return the use of the KV cache of each model that counts it, unless the plugin's method does not work."""
        found = []
        try:
            for model_id, model in self.models.items():
                if (usage := model.kv_cache_usage()) is not None:
                    tokens = {"active_tokens": usage.active_tokens, "cached_tokens": usage.cached_tokens}
                    found.append(wire.KvCacheUsage(model_id=model_id, **tokens))
        except BaseException as error:  # a plugin may raise anything
            if not self._usage_fails:
                self._usage_fails = True
                report_error("the backend's kv_cache_usage() failed", error)
        return found

    def _step(self, model_id: str) -> int | None:
        """Return a model's step number; None if it has none, or if the plugin's method for it does not work."""
        # A core that names no model asks for the work of all, for which one number cannot stand.
        if (model := dict(self.models.items()).get(model_id, self.models.only)) is None:
            return None
        try:
            step = model.step()
            return None if step is None else int(step) % 2**64
        except BaseException as error:  # a plugin may raise anything
            if not self._step_fails:
                self._step_fails = True
                report_error("the backend's step() failed", error)
            return None

    async def _answer(
        self,
        call: Callable[[LoadedModel], Awaitable[T]],
        model_id: str,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> T:
        """Return what a model answers. An exception ends the call with a status and a Failure."""
        if model_id not in self.models:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no model is loaded")
        enter_request(dict(context.invocation_metadata() or ()))
        with self.models.use(model_id) as model:
            return await self._attempt(lambda: call(model), context, self.models.owner(model_id), model_id)

    async def _attempt(
        self,
        call: Callable[[], Awaitable[T]],
        context: grpc.aio.ServicerContext[Any, Any],
        owner: str = "",
        model_id: str = "",
    ) -> T:
        """Return what the plugin answers. An exception ends the call with a status and a Failure.

        `owner` names the model in the log, as " of NAME", where the core cannot know it.
        """
        work = self.work.begin(model_id)
        try:
            answer = await attempt(call)
        finally:
            self.work.end(work)
        if isinstance(answer, Raised):
            await _fail(answer.error, context, owner)
        return answer


async def sliced(items: Sequence[T], convert_one: Callable[[T], R]) -> list[R]:
    """Convert items, letting the event loop run after every SLICE of them."""
    converted: list[R] = []
    for begin in range(0, len(items), SLICE):
        converted += map(convert_one, items[begin : begin + SLICE])
        await asyncio.sleep(0)
    return converted


async def _fail(error: BaseException, context: grpc.aio.ServicerContext[Any, Any], owner: str) -> NoReturn:
    failure = convert.error_to_wire(error)
    code = CODES.get(failure.kind, grpc.StatusCode.INTERNAL)
    # The core tells a lack of memory by this status and tries again with a smaller context.
    if issubclass(type(error), MemoryError):
        code = grpc.StatusCode.RESOURCE_EXHAUSTED
    elif code is grpc.StatusCode.INTERNAL:
        report_error(f"the backend failed{owner}", error)
    metadata = ((convert.FAILURE_KEY, failure.SerializeToString()),)
    await context.abort(code, failure.message[:SHORT], trailing_metadata=metadata)
