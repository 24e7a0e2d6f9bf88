"""Models in host processes: loading one, and the contract's calls to it over a Unix socket."""

import asyncio
import logging
import math
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import grpc

from puna.backend import (
    BackendError,
    Embedding,
    InvalidRequestError,
    LoadedModel,
    ModelFacts,
    ModelSpec,
    SequenceEvent,
    SequenceRequest,
    UnsupportedError,
)
from puna.backend.v1 import backend_pb2 as wire
from puna.backend.v1 import backend_pb2_grpc
from puna.blocking import unheard
from puna.errors import BackendCrashedError, BackendFailedError, LoadFailedError, OutOfMemoryError, PunaError
from puna.host import convert
from puna.host.channel import OPTIONS
from puna.host.stream import Frames, address, connect
from puna.runtime.heartbeat import PATIENCE, Heartbeat, Patience, UnjudgedError
from puna.runtime.host_process import LEAST_READY_SECONDS, READY_SECONDS, HostProcess, terminated

log = logging.getLogger(__name__)

T = TypeVar("T")

CRASHED = (
    "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, "
    "check ollama server logs for details"
)
GOODBYE_SECONDS = 1.0
"""How long a host may take to end its stream before it is told to end itself."""
DEATH_SECONDS = 2.0
"""How long a process may take to be seen dead after its socket closed."""


class HostedModel(LoadedModel):
    """A model in a process of its own. `aclose` ends the process."""

    def __init__(
        self, process: HostProcess, channel: grpc.aio.Channel, facts: ModelFacts, on_death: Callable[[], None]
    ) -> None:
        self._process = process
        self._channel = channel
        self._stub: backend_pb2_grpc.BackendServiceAsyncStub = backend_pb2_grpc.BackendServiceStub(channel)
        self._facts = facts
        self._on_death = on_death
        self._crash = ""
        self._count = 0
        self._sequences: dict[int, asyncio.Queue[wire.SequenceEvent | None]] = {}
        self._gone = asyncio.Event()
        self._stream: Frames | RunCall | None = None
        self._following = asyncio.create_task(self._follow())
        self._watching: asyncio.Task[None] | None = None

    async def connect(self, socket: Path, patience: Patience) -> None:
        """Open the stream on which sequences run, and watch the host from now on."""
        self._stream = await connect(address(socket), self._hear, self._gone.set)
        if self._stream is None:
            self._stream = RunCall(self._stub, self._hear, self._gone.set)
        self._watching = asyncio.create_task(self._watch(patience))

    @property
    def facts(self) -> ModelFacts:
        """What the model turned out to be."""
        return self._facts

    @property
    def pid(self) -> int:
        """Process id of the host."""
        return self._process.pid

    async def generate(self, request: SequenceRequest, /) -> AsyncGenerator[SequenceEvent]:
        """Go on from a prompt. Closing the generator tells the host at once.

        BackendCrashedError: the host died. BackendFailedError: the backend raised. Else as the contract says.
        """
        self._check()
        self._count += 1
        sequence_id, events = self._count, asyncio.Queue[wire.SequenceEvent | None]()
        self._sequences[sequence_id] = events
        running = True
        try:
            start = convert.sequence_to_wire(request)
            self._tell(wire.RunRequest(sequence_id=sequence_id, start=start))
            while running:
                if (news := await events.get()) is None:
                    raise BackendCrashedError(self._crash)
                running = not (news.HasField("finish") or news.HasField("failure"))
                yield convert.event_from_wire(news)
        finally:
            del self._sequences[sequence_id]
            if running:
                self._tell(wire.RunRequest(sequence_id=sequence_id, cancel=True))

    async def tokenize(self, text: str, /, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the ids of a text."""
        request = wire.TokenizeRequest(text=text, add_special=add_special, parse_special=parse_special)
        return list((await self._answer(self._stub.Tokenize, request)).token_ids)

    async def detokenize(self, tokens: Sequence[int], /, *, special: bool) -> list[bytes]:
        """Return each token's bytes."""
        request = wire.DetokenizeRequest(token_ids=tokens, special=special)
        return list((await self._answer(self._stub.Detokenize, request)).pieces)

    async def embed(self, inputs: Sequence[str | Sequence[int]], /, *, raw: bool = False) -> list[Embedding]:
        """Return the vectors of texts."""
        request = wire.EmbedRequest(inputs=[convert.input_to_wire(each) for each in inputs], raw=raw)
        answer = await self._answer(self._stub.Embed, request)
        return [convert.embedding_from_wire(each) for each in answer.embeddings]

    async def rerank(self, query: str, documents: Sequence[str], /) -> list[float]:
        """Return how well each document fits the query."""
        request = wire.RerankRequest(query=query, documents=documents)
        return list((await self._answer(self._stub.Rerank, request)).scores)

    async def aclose(self) -> None:
        """End the process and wait for its end."""
        self._crash = self._crash or "the model was unloaded"
        if self._watching is not None:
            self._watching.cancel()
        if self._stream is not None:
            self._stream.close()
        await asyncio.wait({self._following}, timeout=GOODBYE_SECONDS)
        await self._channel.close()
        await self._process.stop()
        self._gone.set()  # also where no stream was opened that could say so
        await asyncio.wait({self._following})

    def _check(self) -> None:
        if self._crash:
            raise BackendCrashedError(self._crash)

    def _tell(self, request: wire.RunRequest) -> None:
        assert self._stream is not None, "connected when it was loaded"
        self._stream.send(request.SerializeToString())

    def _hear(self, message: bytes) -> None:
        """Hand out what the host says."""
        for event in wire.RunResponse.FromString(message).events:
            if (events := self._sequences.get(event.sequence_id)) is not None:
                events.put_nowait(event)

    async def _follow(self) -> None:
        """Wait until the host says no more, and tell those who wait for it."""
        try:
            await self._gone.wait()
        finally:
            await self._see_death()
            for events in self._sequences.values():
                events.put_nowait(None)

    async def _watch(self, patience: Patience) -> None:
        """End the host when it hangs, and all that waits for it with an error."""
        heartbeat = Heartbeat(lambda: self._stub.Beat(wire.BeatRequest()), patience)
        try:
            wrong = await heartbeat.hang()
        except UnjudgedError:
            return
        if self._crash:
            return
        self._crash = f"{CRASHED}: {wrong}"
        log.error("host %d hangs and is killed: %s", self.pid, wrong)
        self._process.kill()
        self._process.log_last_words()
        self._gone.set()  # a process that the kernel holds may take its time, and waiting requests need not
        self._on_death()

    async def _see_death(self) -> None:
        """Find out why the host is gone, once. A host that lives but no longer talks counts as dead, and is ended."""
        if self._crash:
            return
        if not await self._process.died(within=DEATH_SECONDS):
            await self._process.stop()
        if not self._crash:
            self._crash = f"{CRASHED}: {self._process.explain()}"
            self._process.log_last_words()
            self._on_death()

    async def _answer(self, method: Callable[[Any], "grpc.aio.UnaryUnaryCall[Any, T]"], request: object) -> T:
        """Return the answer to a call of one message. Being cancelled cancels the call.

        Closing the channel cancels its calls too. Only a cancelled task means that the caller left; a call that ends
        cancelled under a caller that waits is a host that is gone.
        """
        self._check()
        call = method(request)
        answer = asyncio.ensure_future(call)
        try:
            await asyncio.wait({answer})
        except asyncio.CancelledError:
            answer.add_done_callback(unheard)
            _give_up(call)
            raise
        if answer.cancelled():
            await self._see_death()
            raise BackendCrashedError(self._crash)
        try:
            return answer.result()
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                await self._see_death()
                self._check()
            raise _error(error) from None
        except grpc.aio.UsageError:  # the channel was closed before the call was on its way
            await self._see_death()
            raise BackendCrashedError(self._crash) from None


class RunCall:
    """The same as Frames for a host that knows gRPC only."""

    def __init__(
        self,
        stub: "backend_pb2_grpc.BackendServiceAsyncStub",
        take: Callable[[bytes], None],
        gone: Callable[[], None],
    ) -> None:
        """Call Run."""
        self._requests: asyncio.Queue[wire.RunRequest | None] = asyncio.Queue()
        self._following = asyncio.create_task(self._follow(stub, take))
        self._following.add_done_callback(lambda _: gone())

    def send(self, message: bytes) -> None:
        """Send a request."""
        self._requests.put_nowait(wire.RunRequest.FromString(message))

    def close(self) -> None:
        """Send no more."""
        self._requests.put_nowait(None)

    async def _follow(self, stub: "backend_pb2_grpc.BackendServiceAsyncStub", take: Callable[[bytes], None]) -> None:
        try:
            async for response in stub.Run(self._outgoing()):
                take(response.SerializeToString())
        except grpc.aio.AioRpcError as error:
            log.debug("a host's stream broke: %s", error.details())

    async def _outgoing(self) -> AsyncIterator[wire.RunRequest]:
        while (request := await self._requests.get()) is not None:
            yield request


async def load(
    backend: str,
    spec: ModelSpec,
    socket: Path,
    *,
    report: Callable[[float], None],
    stall_seconds: float,
    on_death: Callable[[], None],
    patience: Patience = PATIENCE,
) -> HostedModel:
    """Load a model in a new host that listens on `socket`. Cancelling ends the host.

    LoadFailedError: the host died, made no progress for `stall_seconds`, or its backend refused.
    OutOfMemoryError: there was no room. `on_death` is called if the host dies later, or hangs and is killed.
    """
    async with AsyncExitStack() as undo:
        process = await HostProcess.start(socket, min(READY_SECONDS, max(stall_seconds, LEAST_READY_SECONDS)))
        undo.push_async_callback(process.stop)
        channel = grpc.aio.insecure_channel(f"unix:{socket}", options=OPTIONS)
        undo.push_async_callback(channel.close)
        facts = await _load(process, channel, convert.spec_to_wire(backend, spec), report, stall_seconds)
        model = HostedModel(process, channel, facts, on_death)
        undo.pop_all()
        undo.push_async_callback(model.aclose)
        await model.connect(socket, patience)
        undo.pop_all()
    return model


async def _load(
    process: HostProcess,
    channel: grpc.aio.Channel,
    request: wire.LoadRequest,
    report: Callable[[float], None],
    stall_seconds: float,
) -> ModelFacts:
    """Wait for the model; every message and every line of output shows that the loading goes on."""
    loop = asyncio.get_running_loop()
    stub: backend_pb2_grpc.BackendServiceAsyncStub = backend_pb2_grpc.BackendServiceStub(channel)
    facts = None
    try:
        async with asyncio.timeout(None) as stalled:

            def go_on() -> None:
                if stall_seconds < math.inf:
                    stalled.reschedule(loop.time() + stall_seconds)

            go_on()
            process.on_output = go_on
            try:
                async for response in stub.Load(request):
                    go_on()
                    if response.HasField("loaded"):
                        facts = convert.facts_from_wire(response.loaded)
                    else:
                        report(response.fraction)
            finally:
                process.on_output = lambda: None
    except TimeoutError:
        raise LoadFailedError(f"timed out waiting for llama-server to start - {process.last_line}") from None
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE and await process.died(within=DEATH_SECONDS):
            process.log_last_words()
            raise LoadFailedError(terminated(process.explain())) from None
        kind = OutOfMemoryError if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED else LoadFailedError
        raise kind(f"unable to load model: {_error(error)}") from None
    if facts is None:
        raise LoadFailedError("unable to load model: the host did not say what it loaded")
    return facts


def _give_up(call: "grpc.aio.UnaryUnaryCall[Any, Any]") -> None:
    """Cancel a call, but not the task that waits for its end, as its own `cancel` would.

    grpc.aio loses the memory of an operation whose task is cancelled, a kilobyte each time (grpc/grpc#43360). Without
    the class that knows only calls, in another version of it, that is the lesser evil.
    """
    plain = getattr(sys.modules[type(call).__module__], "Call", type(call))
    plain.cancel(call)


def _error(error: grpc.aio.AioRpcError) -> BackendError | PunaError:
    """Read the Failure beside a status; without one, the code must do."""
    for key, value in error.trailing_metadata() or ():
        if key == convert.FAILURE_KEY and isinstance(value, bytes):
            return convert.error_from_wire(convert.Failure.FromString(value))
    text = error.details() or error.code().name
    if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidRequestError(text)
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return UnsupportedError(text)
    return BackendFailedError(text)
