"""Models in host processes: loading one, and calling the backend contract over a Unix socket.

Theory. A host is one process with one loaded model. Calls of one message (tokenize, embed and so on) go over gRPC. All
sequences share one bidirectional stream, which carries starts and cancels in order: the slot of a cancelled sequence
may be given away at once, since the next start cannot overtake the cancel. A cancel is not confirmed; an end that
crosses it is ignored on both sides, because the sequence id is no longer known.

Cancellation runs from the client to the decode thread without a pause. The client closes its connection, the REST or
gRPC handler is cancelled, the serving generators are closed one inside the other, and closing `HostModel.generate`
sends the cancel in its `finally`. In the host, `Sequences` cancels the sequence's task, which closes the plugin's
generator, which tells the decode thread to drop the sequence before its next step.

A host can end in three ways, and each fails every call that is under way with BackendCrashedError. It dies: its stream
ends, and `_watch_stream` reports why. It hangs: the heartbeat notices, and `_watch_heartbeat` kills it. It is unloaded:
`aclose` ends it. `_failure` holds the text of the first of these, which makes the three exclusive.
"""

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
    ModelFacts,
    ModelSpec,
    SequenceEvent,
    SequenceRequest,
    UnsupportedError,
)
from puna.backend.v1 import backend_pb2 as wire
from puna.backend.v1 import backend_pb2_grpc
from puna.blocking import retrieve_exception
from puna.errors import (
    BackendCrashedError,
    BackendFailedError,
    ClientStalledError,
    LoadFailedError,
    OutOfMemoryError,
    PunaError,
)
from puna.host import convert
from puna.host.channel import OPTIONS
from puna.host.stream import Frames, address, connect
from puna.plugins import Plugin
from puna.request_log import without_request
from puna.runtime.heartbeat import NO_TIMEOUTS, HangTimeouts, Heartbeat, HeartbeatUnavailableError
from puna.runtime.host_process import MIN_READY_SECONDS, READY_SECONDS, HostProcess, terminated
from puna.runtime.hosted_model import HostedModel

log = logging.getLogger(__name__)

T = TypeVar("T")

CRASHED = (
    "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, "
    "check ollama server logs for details"
)
READS_TOO_SLOWLY = "the client reads its answer more slowly than the model writes it"
STREAM_END_SECONDS = 1.0
"""How long a host may take to end its stream before its process is stopped."""
EXIT_SECONDS = 2.0
"""How long it may take until a process is seen to be dead after its socket closed."""


class HostModel(HostedModel):
    """A model in a host process. `aclose` ends the process."""

    def __init__(
        self, process: HostProcess, channel: grpc.aio.Channel, facts: ModelFacts, on_death: Callable[[], None]
    ) -> None:
        self._process = process
        self._channel = channel
        self._stub: backend_pb2_grpc.BackendServiceAsyncStub = backend_pb2_grpc.BackendServiceStub(channel)
        self._facts = facts
        self._on_death = on_death
        # Empty while the host is in use. Whatever ends the host sets the text first, and only the first one counts.
        self._failure = ""
        self._last_id = 0
        self._sequences: dict[int, asyncio.Queue[wire.SequenceEvent | None]] = {}
        self._disconnected = asyncio.Event()
        self._stream: Frames | GrpcRunStream | None = None
        # The watch outlives the request that loads the model, so it must not log under that request's id.
        self._stream_watch = asyncio.create_task(self._watch_stream(), context=without_request())
        self._heartbeat_watch: asyncio.Task[None] | None = None

    async def connect(self, socket: Path, timeouts: HangTimeouts) -> None:
        """Open the stream on which sequences run, and start the heartbeat."""
        self._stream = await connect(address(socket), self._on_message, self._disconnected.set)
        if self._stream is None:
            self._stream = GrpcRunStream(self._stub, self._on_message, self._disconnected.set)
        self._heartbeat_watch = asyncio.create_task(self._watch_heartbeat(timeouts), context=without_request())

    @property
    def facts(self) -> ModelFacts:
        """The facts of the model."""
        return self._facts

    @property
    def pid(self) -> int:
        """Process id of the host."""
        return self._process.pid

    async def generate(self, request: SequenceRequest, /) -> AsyncGenerator[SequenceEvent]:
        """Run a sequence. Closing the generator sends the cancel to the host at once.

        Raises BackendCrashedError if the host dies, BackendFailedError if the backend raises an error that the contract
        does not name, and the contract's own errors.
        """
        self._check()
        # Ids are never reused, since events of a cancelled sequence may still arrive.
        self._last_id += 1
        sequence_id, events = self._last_id, asyncio.Queue[wire.SequenceEvent | None]()
        self._sequences[sequence_id] = events
        running = True
        try:
            start = convert.sequence_to_wire(request)
            self._send(wire.RunRequest(sequence_id=sequence_id, start=start))
            while running:
                if (event := await events.get()) is None:
                    raise BackendCrashedError(self._failure) if self._failure else ClientStalledError(READS_TOO_SLOWLY)
                running = not (event.HasField("finish") or event.HasField("failure"))
                yield convert.event_from_wire(event)
        finally:
            self._sequences.pop(sequence_id, None)
            # A sequence that has ended needs no cancel; the host no longer knows it.
            if running:
                self._send(wire.RunRequest(sequence_id=sequence_id, cancel=True))

    async def tokenize(self, text: str, /, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the token ids of a text."""
        request = wire.TokenizeRequest(text=text, add_special=add_special, parse_special=parse_special)
        return list((await self._call(self._stub.Tokenize, request)).token_ids)

    async def detokenize(self, tokens: Sequence[int], /, *, special: bool) -> list[bytes]:
        """Return the bytes of each token."""
        request = wire.DetokenizeRequest(token_ids=tokens, special=special)
        return list((await self._call(self._stub.Detokenize, request)).pieces)

    async def embed(self, inputs: Sequence[str | Sequence[int]], /, *, raw: bool = False) -> list[Embedding]:
        """Return the embedding vectors of texts or token ids."""
        request = wire.EmbedRequest(inputs=[convert.input_to_wire(each) for each in inputs], raw=raw)
        answer = await self._call(self._stub.Embed, request)
        return [convert.embedding_from_wire(each) for each in answer.embeddings]

    async def rerank(self, query: str, documents: Sequence[str], /) -> list[float]:
        """Return the relevance score of each document."""
        request = wire.RerankRequest(query=query, documents=documents)
        return list((await self._call(self._stub.Rerank, request)).scores)

    async def aclose(self) -> None:
        """End the process and wait until it is gone."""
        self._failure = self._failure or "the model was unloaded"
        if self._heartbeat_watch is not None:
            self._heartbeat_watch.cancel()
        # Closing the stream first lets the host end its sequences before it gets SIGTERM.
        if self._stream is not None:
            self._stream.close()
        await asyncio.wait({self._stream_watch}, timeout=STREAM_END_SECONDS)
        await self._channel.close()
        await self._process.stop()
        # A stream that was never opened does not set the event, and the watch waits for it.
        self._disconnected.set()
        await asyncio.wait({self._stream_watch})

    def _check(self) -> None:
        if self._failure:
            raise BackendCrashedError(self._failure)

    def _send(self, request: wire.RunRequest) -> None:
        assert self._stream is not None, "connected when it was loaded"
        self._stream.send(request.SerializeToString())

    def _on_message(self, message: bytes) -> None:
        """Pass the events of a message to their sequences."""
        for event in wire.RunResponse.FromString(message).events:
            if (events := self._sequences.get(event.sequence_id)) is not None:
                # Waiting here would hold up all other sequences of the stream. So a sequence whose client reads too
                # slowly goes on until too many events wait, and is then cancelled.
                if events.qsize() < self.max_unread:
                    events.put_nowait(event)
                    continue
                del self._sequences[event.sequence_id]
                self._send(wire.RunRequest(sequence_id=event.sequence_id, cancel=True))
                events.put_nowait(None)

    async def _watch_stream(self) -> None:
        """Wait until the stream ends, and fail every sequence that is still running."""
        try:
            await self._disconnected.wait()
        finally:
            # The cause is determined before the sequences are woken, since they raise it.
            await self._handle_exit()
            for events in self._sequences.values():
                events.put_nowait(None)

    async def _watch_heartbeat(self, timeouts: HangTimeouts) -> None:
        """Kill the host when it hangs, and fail every call that waits for it."""
        heartbeat = Heartbeat(lambda: self._stub.Heartbeat(wire.HeartbeatRequest()), timeouts)
        try:
            reason = await heartbeat.wait_for_hang()
        except HeartbeatUnavailableError:
            return
        if self._failure:
            return
        self._failure = f"{CRASHED}: {reason}"
        log.error("host %d hangs and is killed: %s", self.pid, reason)
        self._process.kill()
        self._process.log_last_output()
        # The kernel may take seconds to end the process. Setting the event here fails the requests at once.
        self._disconnected.set()
        self._on_death()

    async def _handle_exit(self) -> None:
        """Find out why the host is gone, once. A host that closed its stream but still runs is stopped."""
        if self._failure:
            return
        # The kernel closes the sockets of a dying process before its parent can see the exit status.
        if not await self._process.died(within=EXIT_SECONDS):
            await self._process.stop()
        # Another way to end may have won the race while this one waited.
        if not self._failure:
            self._failure = f"{CRASHED}: {self._process.explain()}"
            self._process.log_last_output()
            self._on_death()

    async def _call(self, method: Callable[[Any], "grpc.aio.UnaryUnaryCall[Any, T]"], request: object) -> T:
        """Return the answer to an RPC of one message. Cancelling the caller cancels the RPC.

        Closing the channel cancels its RPCs too, so a CancelledError of the RPC does not say who asked for the end. The
        caller's own task does: if it was not cancelled, a cancelled RPC means that the host is gone.
        """
        self._check()
        call = method(request)
        # A task of its own can be waited for without cancelling the RPC's task, which leaks in grpc.aio. See
        # _cancel_call.
        answer = asyncio.ensure_future(call)
        try:
            await asyncio.wait({answer})
        except asyncio.CancelledError:
            answer.add_done_callback(retrieve_exception)
            _cancel_call(call)
            raise
        if answer.cancelled():
            await self._handle_exit()
            raise BackendCrashedError(self._failure)
        try:
            return answer.result()
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                await self._handle_exit()
                self._check()
            raise _error(error) from None
        except grpc.aio.UsageError:  # the channel was closed before the call was on its way
            await self._handle_exit()
            raise BackendCrashedError(self._failure) from None


class GrpcRunStream:
    """The Run stream over gRPC, for a host without a stream socket; it has the same methods as Frames."""

    def __init__(
        self,
        stub: "backend_pb2_grpc.BackendServiceAsyncStub",
        take: Callable[[bytes], None],
        gone: Callable[[], None],
    ) -> None:
        """Start the call. `take` is called with each message, `gone` once when the stream ends."""
        self._requests: asyncio.Queue[wire.RunRequest | None] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read(stub, take))
        self._reading.add_done_callback(lambda _: gone())

    def send(self, message: bytes) -> None:
        """Queue a serialized RunRequest."""
        self._requests.put_nowait(wire.RunRequest.FromString(message))

    def close(self) -> None:
        """End the stream after the requests that are queued."""
        self._requests.put_nowait(None)

    async def _read(self, stub: "backend_pb2_grpc.BackendServiceAsyncStub", take: Callable[[bytes], None]) -> None:
        try:
            async for response in stub.Run(self._outgoing()):
                take(response.SerializeToString())
        except grpc.aio.AioRpcError as error:
            log.debug("a host's stream broke: %s", error.details())

    async def _outgoing(self) -> AsyncIterator[wire.RunRequest]:
        while (request := await self._requests.get()) is not None:
            yield request


async def load(
    backend: Plugin,
    spec: ModelSpec,
    socket: Path,
    *,
    report: Callable[[float], None],
    stall_seconds: float,
    on_death: Callable[[], None],
    timeouts: HangTimeouts = NO_TIMEOUTS,
) -> HostModel:
    """Load a model in a new host that listens on `socket`. Cancelling ends the host.

    `on_death` is called if the host dies after the load, or hangs and is killed. Raises OutOfMemoryError if there is no
    room, and LoadFailedError if the host dies, makes no progress for `stall_seconds`, or its backend refuses.
    """
    # Whatever fails or is cancelled below undoes the steps before it, in reverse order.
    async with AsyncExitStack() as undo:
        process = await HostProcess.start(backend, socket, min(READY_SECONDS, max(stall_seconds, MIN_READY_SECONDS)))
        undo.push_async_callback(process.stop)
        channel = grpc.aio.insecure_channel(f"unix:{socket}", options=OPTIONS)
        undo.push_async_callback(channel.close)
        facts = await _load(process, channel, convert.spec_to_wire(backend.name, spec), report, stall_seconds)
        model = HostModel(process, channel, facts, on_death)
        # From here on `model.aclose` ends the channel and the process as well, in the right order.
        undo.pop_all()
        undo.push_async_callback(model.aclose)
        await model.connect(socket, timeouts)
        undo.pop_all()
    return model


async def _load(
    process: HostProcess,
    channel: grpc.aio.Channel,
    request: wire.LoadRequest,
    report: Callable[[float], None],
    stall_seconds: float,
) -> ModelFacts:
    """Wait until the model is loaded. Each message and each line of output counts as progress."""
    loop = asyncio.get_running_loop()
    stub: backend_pb2_grpc.BackendServiceAsyncStub = backend_pb2_grpc.BackendServiceStub(channel)
    facts = None
    try:
        async with asyncio.timeout(None) as stalled:

            def reset_stall_timer() -> None:
                if stall_seconds < math.inf:
                    stalled.reschedule(loop.time() + stall_seconds)

            reset_stall_timer()
            # A library may load for minutes and report no fraction, but print lines.
            process.on_output = reset_stall_timer
            try:
                async for response in stub.Load(request):
                    reset_stall_timer()
                    if response.HasField("loaded"):
                        facts = convert.facts_from_wire(response.loaded)
                    else:
                        report(response.fraction)
            finally:
                process.on_output = lambda: None
    except TimeoutError:
        # Clients look for Ollama's text, which names its own engine.
        raise LoadFailedError(f"timed out waiting for llama-server to start - {process.last_line}") from None
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE and await process.died(within=EXIT_SECONDS):
            process.log_last_output()
            raise LoadFailedError(terminated(process.explain())) from None
        kind = OutOfMemoryError if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED else LoadFailedError
        raise kind(f"unable to load model: {_error(error)}") from None
    if facts is None:
        raise LoadFailedError("unable to load model: the host did not say what it loaded")
    return facts


def _cancel_call(call: "grpc.aio.UnaryUnaryCall[Any, Any]") -> None:
    """Cancel an RPC without cancelling grpc.aio's task that waits for its end, which `call.cancel()` would do.

    grpc.aio leaks about a kilobyte for each operation whose task is cancelled (grpc/grpc#43360). `Call.cancel`, of the
    base class, cancels the RPC alone. In a version of grpc without that class the leak is accepted.
    """
    plain = getattr(sys.modules[type(call).__module__], "Call", type(call))
    plain.cancel(call)


def _error(error: grpc.aio.AioRpcError) -> BackendError | PunaError:
    """Return the exception for a failed RPC: from the Failure in its trailing metadata, else from its status code."""
    for key, value in error.trailing_metadata() or ():
        if key == convert.FAILURE_KEY and isinstance(value, bytes):
            return convert.error_from_wire(convert.Failure.FromString(value))
    text = error.details() or error.code().name
    if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidRequestError(text)
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return UnsupportedError(text)
    return BackendFailedError(text)
