"""The gRPC servicer of a host: the backend contract of one loaded model over the wire."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, NoReturn, TypeVar

import grpc

from puna.backend import CONTRACT_VERSION, Backend, LoadedModel
from puna.backend.v1 import backend_pb2 as wire
from puna.backend.v1 import backend_pb2_grpc
from puna.blocking import retrieve_exception
from puna.host import convert
from puna.host.sequences import SequenceCounts, Sequences
from puna.traceback_summary import summarize

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

CODES = {
    wire.Failure.KIND_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    wire.Failure.KIND_CONTEXT_OVERFLOW: grpc.StatusCode.INVALID_ARGUMENT,
    wire.Failure.KIND_UNSUPPORTED: grpc.StatusCode.UNIMPLEMENTED,
}
SLICE = 64
"""Texts or vectors that are converted in one turn of the loop; heartbeats and deltas are sent between the turns."""
SHORT = 200
"""Characters of an error in the status message; the Failure has the full text."""


class BackendServicer(backend_pb2_grpc.BackendServiceServicer):
    """Serves one model. `aclose` frees it.

    The streaming methods are coroutines that write messages, which the generated types do not know. As generators they
    would be left to the garbage collector when the call is cancelled between two messages.
    """

    def __init__(self, make_backend: Callable[[], Backend]) -> None:
        """`make_backend` imports the plugin; it is called in a thread, when it is first needed."""
        self._make_backend = make_backend
        self._made: Backend | None = None
        self._model: LoadedModel | None = None
        self.counts = SequenceCounts()
        """Counts of the sequences of all streams."""

    @property
    def loaded(self) -> LoadedModel | None:
        """The model; None before it is loaded."""
        return self._model

    async def aclose(self) -> None:
        """Free the model, if one is loaded."""
        # Taken away before the `await`, so that a call which arrives meanwhile finds no model instead of a closed one.
        model, self._model = self._model, None
        if model is not None:
            await model.aclose()
        if self._made is not None:
            await self._made.aclose()

    async def Describe(
        self,
        request: wire.DescribeRequest,  # noqa: ARG002
        context: grpc.aio.ServicerContext[wire.DescribeRequest, wire.DescribeResponse],  # noqa: ARG002
    ) -> wire.DescribeResponse:
        """Answer with the version of the contract that this host speaks."""
        return wire.DescribeResponse(contract_version=CONTRACT_VERSION)

    async def ListModels(
        self,
        request: wire.ListModelsRequest,
        context: grpc.aio.ServicerContext[wire.ListModelsRequest, wire.ListModelsResponse],
    ) -> wire.ListModelsResponse:
        """List the models that the backend offers."""
        models = await _answer(self._list_models(json.loads(request.backend_options_json or "{}")), context)
        return wire.ListModelsResponse(models=models)

    async def _list_models(self, options: Mapping[str, object]) -> list[wire.UpstreamModel]:
        backend = await self._backend()
        # Written here, so that an answer of another type counts as the plugin's error.
        return [
            wire.UpstreamModel(name=each.name, capabilities=each.capabilities, context_length=each.context_length)
            for each in await backend.models(options)
        ]

    async def _backend(self) -> Backend:
        """Return the backend, which is made at the first call."""
        if self._made is None:
            # Importing a plugin may take seconds, and the heartbeat must be answered meanwhile.
            self._made = await asyncio.to_thread(self._make_backend)
        return self._made

    async def Unload(
        self,
        request: wire.UnloadRequest,  # noqa: ARG002
        context: grpc.aio.ServicerContext[wire.UnloadRequest, wire.UnloadResponse],
    ) -> wire.UnloadResponse:
        """Refuse, since a host that is not shared frees its model when it ends."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this host is not shared")

    async def Load(  # type: ignore[override]
        self, request: wire.LoadRequest, context: grpc.aio.ServicerContext[wire.LoadRequest, wire.LoadResponse]
    ) -> None:
        """Load the model. Cancelling the call cancels the loading."""
        if self._model is not None:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "a model is loaded already")
        loop = asyncio.get_running_loop()
        fractions: asyncio.Queue[float | None] = asyncio.Queue()

        def report(fraction: float) -> None:  # plugins may call this from any thread
            loop.call_soon_threadsafe(fractions.put_nowait, fraction)

        async def load() -> LoadedModel:
            backend = await self._backend()
            return await backend.load(convert.spec_from_wire(request), report)

        loading = asyncio.create_task(load())
        loading.add_done_callback(retrieve_exception)
        # The end goes through the same queue as the fractions, so none of them is lost.
        loading.add_done_callback(lambda _: fractions.put_nowait(None))
        try:
            while (fraction := await fractions.get()) is not None:
                await context.write(wire.LoadResponse(fraction=fraction))
        finally:
            loading.cancel()
            await asyncio.wait({loading})
        model = self._model = await _answer(loading, context)
        await context.write(wire.LoadResponse(loaded=convert.facts_to_wire(model.facts)))

    async def Run(  # type: ignore[override]
        self,
        request_iterator: AsyncIterator[wire.RunRequest],
        context: grpc.aio.ServicerContext[wire.RunRequest, wire.RunResponse],
    ) -> None:
        """Run sequences until the core closes the stream."""
        sequences = Sequences(await self._loaded(context), self.counts)
        async with aclosing(sequences.run(request_iterator)) as responses:
            async for response in responses:
                await context.write(response)

    async def Embed(
        self, request: wire.EmbedRequest, context: grpc.aio.ServicerContext[wire.EmbedRequest, wire.EmbedResponse]
    ) -> wire.EmbedResponse:
        """Embed texts."""
        model = await self._loaded(context)
        inputs = await sliced(request.inputs, convert.input_from_wire)
        embeddings = await _answer(model.embed(inputs, raw=request.raw), context)
        return wire.EmbedResponse(embeddings=await sliced(embeddings, convert.embedding_to_wire))

    async def Rerank(
        self, request: wire.RerankRequest, context: grpc.aio.ServicerContext[wire.RerankRequest, wire.RerankResponse]
    ) -> wire.RerankResponse:
        """Score documents."""
        model = await self._loaded(context)
        return wire.RerankResponse(scores=await _answer(model.rerank(request.query, request.documents), context))

    async def Tokenize(
        self,
        request: wire.TokenizeRequest,
        context: grpc.aio.ServicerContext[wire.TokenizeRequest, wire.TokenizeResponse],
    ) -> wire.TokenizeResponse:
        """Tokenize a text."""
        model = await self._loaded(context)
        tokens = model.tokenize(request.text, add_special=request.add_special, parse_special=request.parse_special)
        return wire.TokenizeResponse(token_ids=await _answer(tokens, context))

    async def Detokenize(
        self,
        request: wire.DetokenizeRequest,
        context: grpc.aio.ServicerContext[wire.DetokenizeRequest, wire.DetokenizeResponse],
    ) -> wire.DetokenizeResponse:
        """Return the bytes of tokens."""
        model = await self._loaded(context)
        pieces = model.detokenize(tuple(request.token_ids), special=request.special)
        return wire.DetokenizeResponse(pieces=await _answer(pieces, context))

    async def Heartbeat(
        self,
        request: wire.HeartbeatRequest,  # noqa: ARG002
        context: grpc.aio.ServicerContext[wire.HeartbeatRequest, wire.HeartbeatResponse],  # noqa: ARG002
    ) -> wire.HeartbeatResponse:
        """Answer with the step number of the model's work."""
        step = self._model.step() if self._model is not None else None
        # For a model without step numbers each event is a step, so a sequence that yields nothing counts as hung.
        if step is None and self.counts.running:
            step = self.counts.events
        return wire.HeartbeatResponse(step=step)

    async def _loaded(self, context: grpc.aio.ServicerContext[Any, Any]) -> LoadedModel:
        if self._model is None:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no model is loaded")
        return self._model


async def sliced(items: Sequence[T], convert_one: Callable[[T], R]) -> list[R]:
    """Convert items, letting the event loop run after every SLICE of them."""
    converted: list[R] = []
    for begin in range(0, len(items), SLICE):
        converted += map(convert_one, items[begin : begin + SLICE])
        await asyncio.sleep(0)
    return converted


async def _answer(call: Awaitable[T], context: grpc.aio.ServicerContext[Any, Any]) -> T:
    """Wait for the plugin's answer. An error of it ends the call with a status and a Failure."""
    try:
        return await call
    except Exception as error:  # a plugin may raise anything
        await _fail(error, context)


async def _fail(error: Exception, context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
    failure = convert.error_to_wire(error)
    code = CODES.get(failure.kind, grpc.StatusCode.INTERNAL)
    # The core tells a lack of memory by this status and tries again with a smaller context.
    if isinstance(error, MemoryError):
        code = grpc.StatusCode.RESOURCE_EXHAUSTED
    elif code is grpc.StatusCode.INTERNAL:
        log.error("the backend failed: %s", summarize(error))
    metadata = ((convert.FAILURE_KEY, failure.SerializeToString()),)
    await context.abort(code, failure.message[:SHORT], trailing_metadata=metadata)
