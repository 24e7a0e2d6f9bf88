"""A model in a host process: calling the backend contract over a Unix socket.

Theory. A host is one process with one loaded model, or with all models of a backend whose manifest says `shared`. Each
model has a stream of its own. Calls of one message (tokenize, rerank and so on) go over gRPC, but a single text to
embed is a sequence of one event where the host can do that. All sequences share one bidirectional stream, which carries
starts and cancels in order: the slot of a cancelled sequence may be given away at once, since the next start cannot
overtake the cancel. A cancel is not confirmed; an end that crosses it is ignored on both sides, because the sequence id
is no longer known.

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
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import grpc

from puna import events
from puna.backend import (
    DocumentScores,
    Embedding,
    Finish,
    KvCacheUsage,
    ModelFacts,
    SequenceEvent,
    SequenceRequest,
)
from puna.backend.metadata import request_metadata
from puna.backend.v1 import backend_pb2 as wire
from puna.blocking import retrieve_exception
from puna.errors import (
    BackendCrashedError,
    BackendFailedError,
    ClientStalledError,
)
from puna.host import convert
from puna.host.stream import Frames
from puna.limits import Limits
from puna.request_log import without_request
from puna.runtime.heartbeat import HangTimeouts, Heartbeat, HeartbeatUnavailableError, answered
from puna.runtime.host_answers import (
    EventCheck,
    check_pieces,
    check_scores,
    check_tokens,
    check_vectors,
)
from puna.runtime.host_connection import EXIT_SECONDS, HostConnection
from puna.runtime.host_events import IncomingEvents
from puna.runtime.host_rpc import GrpcRunStream, cancel_call, error_of
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


class HostModel(HostedModel):
    """A model in a host process. `aclose` ends the process, or frees the model of one that is shared."""

    def __init__(
        self,
        host: HostConnection,
        facts: ModelFacts,
        on_death: Callable[[], None],
        limits: Limits,
        timeouts: HangTimeouts,
        *,
        embeds_in_run: bool = False,
    ) -> None:
        """`embeds_in_run`: the host embeds single texts in the stream of its sequences."""
        self._host = host
        self._process = host.process
        self._limits = limits
        self._timeouts = timeouts
        self._stub = host.stub
        self._facts = facts
        self._embeds_in_run = embeds_in_run
        self._on_death = on_death
        # Empty while the host is in use. Whatever ends the host sets the text first, and only the first one counts.
        self._failure = ""
        self._incoming = IncomingEvents(limits, self._give_up, self._cancel)
        self._kv_cache_usage: KvCacheUsage | None = None
        self._calls = 0
        """Number of RPCs of one message that are under way."""
        self._disconnected = asyncio.Event()
        self._stream: Frames | GrpcRunStream | None = None
        # The watch outlives the request that loads the model, so it must not log under that request's id.
        self._stream_watch = asyncio.create_task(self._watch_stream(), context=without_request())
        self._heartbeat_watch: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Open the stream on which sequences run, and start the heartbeat."""
        self._stream = await self._host.endpoint.open_stream(
            self._incoming.take,
            self._disconnected.set,
            max_message_bytes=self._limits.max_host_message_bytes,
            on_too_long=self._on_too_long,
        )
        if self._stream is None:
            self._stream = GrpcRunStream(self._stub, self._incoming.take, self._disconnected.set, self._give_up)
        self._heartbeat_watch = asyncio.create_task(self._watch_heartbeat(), context=without_request())

    @property
    def facts(self) -> ModelFacts:
        """The facts of the model."""
        return self._facts

    @property
    def node(self) -> str:
        """Address of the node on which the host runs; empty: this machine."""
        return self._process.node

    @property
    def process_id(self) -> int:
        """Process id of the host on the machine on which it runs."""
        return self._process.process_id

    @property
    def pid(self) -> int:
        """Process id of the host; 0 if it runs on another machine."""
        return self._process.pid

    async def generate(self, request: SequenceRequest, /) -> AsyncGenerator[SequenceEvent]:
        """Run a sequence. Closing the generator sends the cancel to the host at once.

        Raises BackendCrashedError if the host dies, BackendFailedError if the backend raises an error that the contract
        does not name, and the contract's own errors.
        """
        self._check()
        sequence_id, incoming = self._incoming.open()
        checker = EventCheck(request)
        try:
            start = convert.sequence_to_wire(request)
            start.model_id = self._host.model_id
            # All sequences share one call, so its own metadata cannot tell them apart.
            start.metadata.update(request_metadata())
            self._send(wire.RunRequest(sequence_id=sequence_id, start=start))
            while not incoming.ended:
                if (event := await incoming.events.get()) is None:
                    raise self._crash() if self._failure else ClientStalledError(READS_TOO_SLOWLY)
                incoming.ended = event.HasField("failure")
                parsed = convert.event_from_wire(event)
                checker.check(parsed)
                incoming.ended = isinstance(parsed, Finish)
                yield parsed
        finally:
            self._incoming.close(sequence_id)
            # A sequence that has ended needs no cancel; the host no longer knows it.
            if not incoming.ended:
                self._cancel(sequence_id)

    def kv_cache_usage(self) -> KvCacheUsage | None:
        """Return how full the KV cache was at the last heartbeat; None if the host does not tell."""
        return self._kv_cache_usage

    async def tokenize(self, text: str, /, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the token ids of a text."""
        special = {"add_special": add_special, "parse_special": parse_special}
        request = wire.TokenizeRequest(text=text, **special, model_id=self._host.model_id)
        answer = await self._call(self._stub.Tokenize, request, within=self._timeouts.step)
        return check_tokens(list(answer.token_ids))

    async def detokenize(self, tokens: Sequence[int], /, *, special: bool) -> list[bytes]:
        """Return the bytes of each token."""
        request = wire.DetokenizeRequest(token_ids=tokens, special=special, model_id=self._host.model_id)
        answer = await self._call(self._stub.Detokenize, request, within=self._timeouts.step)
        return check_pieces(list(answer.pieces), len(tokens))

    async def embed(self, inputs: Sequence[str | Sequence[int]], /, *, raw: bool = False) -> list[Embedding]:
        """Return the embedding vectors of texts or token ids."""
        messages = [convert.input_to_wire(each) for each in inputs]
        # Many vectors in one message of the stream would hold up the deltas behind them.
        if self._embeds_in_run and len(messages) == 1:
            found: Sequence[wire.Embedding] = [await self._embed_in_run(messages[0], raw=raw)]
        else:
            request = wire.EmbedRequest(inputs=messages, raw=raw, model_id=self._host.model_id)
            found = (await self._call(self._stub.Embed, request)).embeddings
        try:
            vectors = [convert.embedding_from_wire(each) for each in found]
        except ValueError:
            raise BackendFailedError("the backend breaks its contract: a vector has a part of a number") from None
        return check_vectors(vectors, len(inputs), self._facts.embedding_length)

    async def _embed_in_run(self, text: wire.EmbedInput, *, raw: bool) -> wire.Embedding:
        """Have a text embedded in the stream. Raises what `generate` raises."""
        self._check()
        sequence_id, incoming = self._incoming.open()
        try:
            start = wire.StartEmbedding(input=text, raw=raw, model_id=self._host.model_id, metadata=request_metadata())
            self._send(wire.RunRequest(sequence_id=sequence_id, embed=start))
            if (event := await incoming.events.get()) is None:
                raise self._crash()
            incoming.ended = event.HasField("failure") or event.HasField("embedding")
            if event.HasField("embedding"):
                return event.embedding
            convert.event_from_wire(event)  # raises the error of a failure
            raise BackendFailedError("the backend breaks its contract: it answered a text to embed with another event")
        finally:
            self._incoming.close(sequence_id)
            if not incoming.ended:
                self._cancel(sequence_id)

    async def rerank(self, query: str, documents: Sequence[str], /) -> DocumentScores:
        """Return the relevance scores of documents."""
        request = wire.RerankRequest(query=query, documents=documents, model_id=self._host.model_id)
        answer = await self._call(self._stub.Rerank, request)
        return check_scores(DocumentScores(list(answer.scores), answer.token_count), len(documents))

    async def aclose(self) -> None:
        """End the process, or free the model of a shared one, and wait for it."""
        self._failure = self._failure or "the model was unloaded"
        if self._heartbeat_watch is not None:
            self._heartbeat_watch.cancel()
        # Closing the stream first lets the host end its sequences before it gets SIGTERM.
        if self._stream is not None:
            self._stream.close()
        await asyncio.wait({self._stream_watch}, timeout=STREAM_END_SECONDS)
        await self._host.release()
        # A stream that was never opened does not set the event, and the watch waits for it.
        self._disconnected.set()
        await asyncio.wait({self._stream_watch})

    def _crash(self) -> BackendCrashedError:
        """Return the error of a call whose host is gone."""
        return BackendCrashedError(self._failure, **({"node": self.node} if self.node else {}))

    def _check(self) -> None:
        if self._failure:
            raise self._crash()

    def _send(self, request: wire.RunRequest) -> None:
        assert self._stream is not None, "connected when it was loaded"
        self._stream.send(request.SerializeToString())

    def _cancel(self, sequence_id: int) -> None:
        self._send(wire.RunRequest(sequence_id=sequence_id, cancel=True))

    def _on_too_long(self, length: int) -> None:
        limit = self._limits.max_host_message_bytes
        self._give_up(f"it sent a message of {length} bytes, above {limit} (PUNA_MAX_HOST_MESSAGE_BYTES)")

    def _messages_if_due(self) -> int | None:
        """Return the number of messages from the host so far; None if the core waits for none."""
        return self._incoming.messages if self._calls or self._incoming.due else None

    async def _watch_stream(self) -> None:
        """Wait until the stream ends, and fail every sequence that is still running."""
        try:
            await self._disconnected.wait()
        finally:
            # The cause is determined before the sequences are woken, since they raise it.
            await self._handle_exit()
            self._incoming.end()

    async def _watch_heartbeat(self) -> None:
        """Kill the host when it hangs, and fail every call that waits for it."""
        heartbeat = Heartbeat(
            lambda: self._stub.Heartbeat(wire.HeartbeatRequest(model_id=self._host.model_id)),
            self._timeouts,
            self._messages_if_due,
            self._take_usage,
        )
        with suppress(HeartbeatUnavailableError):
            self._give_up(await heartbeat.wait_for_hang())

    def _take_usage(self, answer: wire.HeartbeatResponse) -> None:
        """Remember how full the KV cache is. An impossible number is cut to a possible one."""
        total = self._facts.kv_cache_tokens
        for each in answer.kv_caches:
            if each.model_id == self._host.model_id and total:
                active = min(max(each.active_tokens, 0), total)
                self._kv_cache_usage = KvCacheUsage(active, min(max(each.cached_tokens, 0), total - active))

    def _give_up(self, reason: str) -> None:
        """Kill the host, which hangs or breaks the protocol, and fail every call that waits for it."""
        if self._failure:
            return
        self._failure = f"{CRASHED}: {reason}"
        log.error("%s: %s is killed: %s", self._process.label, self._process.title, reason)
        self._process.kill()
        self._process.log_last_output()
        # The kernel may take seconds to end the process. Setting the event here fails the requests at once.
        self._disconnected.set()
        events.publish(events.HostDied(model=self._process.label, status="hang"))
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
            events.publish(events.HostDied(model=self._process.label, status=self._process.status))
            self._on_death()

    async def _call(
        self, method: Callable[..., "grpc.aio.UnaryUnaryCall[Any, T]"], request: object, *, within: float = math.inf
    ) -> T:
        """Return the answer to an RPC of one message. Cancelling the caller cancels the RPC.

        The host is killed if the answer takes longer than `within` seconds, counted as the heartbeat counts them.

        Closing the channel cancels its RPCs too, so a CancelledError of the RPC does not say who asked for the end. The
        caller's own task does: if it was not cancelled, a cancelled RPC means that the host is gone.
        """
        self._check()
        call = method(request, metadata=tuple(request_metadata().items()))
        # A task of its own can be waited for without cancelling the RPC's task, which leaks in grpc.aio. See
        # cancel_call.
        answer = asyncio.ensure_future(call)
        self._calls += 1
        try:
            if within == math.inf:
                await asyncio.wait({answer})  # without timers, of which each would live on after its call
            elif not await answered(answer, within):
                self._give_up(f"a call has had no answer for {within:g} seconds")
                answer.add_done_callback(retrieve_exception)
                cancel_call(call)
                raise self._crash()
        except asyncio.CancelledError:
            answer.add_done_callback(retrieve_exception)
            cancel_call(call)
            raise
        finally:
            self._calls -= 1
            self._incoming.messages += 1  # an answer is one
        if answer.cancelled():
            await self._handle_exit()
            raise self._crash()
        try:
            return answer.result()
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                await self._handle_exit()
                self._check()
            raise error_of(error) from None
        except grpc.aio.UsageError:  # the channel was closed before the call was on its way
            await self._handle_exit()
            raise self._crash() from None
