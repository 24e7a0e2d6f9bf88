"""The table of requests under way: they can be listed, cancelled and drained.

A request is entered as the task that answers it, so cancelling the request cancels the task. The task's own code finds
out from the entry why it was cancelled: because a CancelRequests call named it (`cancelled`), because the server ends
(`ended`), or, with neither flag set, because the client hung up.
"""

import asyncio
import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

from puna import events, request_log
from puna.auth.caller import current
from puna.backend.metadata import request_metadata
from puna.errors import PunaError, ServerEndingError
from puna.serving.answers import Delta, Done, Event, Progress, Timings, Usage
from puna.serving.load_meter import LoadMeter

_APART: Final = frozenset(
    ("PullModel", "PushModel", "CreateModel", "CopyModel", "DeleteModel", "ImportModels", "CheckStore", "UploadBlob")
)
"""Requests that run no model. Batches run beside them."""
LAST_GRACE = 10.0
"""Seconds that cancelled requests may take to clean up."""


class Yielding(Protocol):
    """Work in the background, which gives way to requests."""

    def on_begin(self) -> None:
        """A request begins."""

    def on_wait(self) -> None:
        """A request waits for a slot or for a model."""

    def on_idle(self) -> None:
        """The last request has ended, or the server is about to end."""


class _NoWork:
    def on_begin(self) -> None: ...

    def on_wait(self) -> None: ...

    def on_idle(self) -> None: ...


@dataclass(slots=True)
class Entry:
    """A request under way."""

    id: str
    model: str
    method: str
    task: "asyncio.Task[object]"
    start_ns: int = field(default_factory=time.time_ns)
    prompt_tokens: int = 0
    """Tokens of its prompt, once its prefill has begun; 0 for backends that tell of no prefill."""
    output_tokens: int = 0
    queue_position: int = 0
    """Number of requests in front of it; 0: it does not wait."""
    arrival_position: int = 0
    """Number of requests in front of it when it began to wait; 0: it has not waited."""
    phase: str = "prefill"
    """The phase of the request: "queued", "loading", "prefill" or "decode"."""
    usage: Usage | None = None
    """The counts of its answer, once they are known."""
    timings: Timings = field(default_factory=Timings)
    """The durations of its answer, once they are known."""
    reason: str = ""
    """Why its answer ended, once it has."""
    vectors: int = 0
    """Number of embeddings in its answer."""
    reasons: tuple[str, ...] = ()
    """Why each of its answers ended, once all have."""
    first_output: float = 0.0
    """Monotonic time of its first delta; 0: there is none yet."""
    arrivals: list[float] | None = None
    """Monotonic times of its deltas; None if no listener wants them."""
    deltas: list[Delta] | None = None
    """The deltas of its answer; None if no listener wants them."""
    cancelled: bool = False
    """Whether another request cancelled it."""
    ended: bool = False
    """Whether the server cancelled it because the server ends."""
    on_wait: Callable[[], None] | None = None
    """Called while the request waits; None for requests that nothing gives way to."""

    def on_progress(self, progress: Progress) -> None:
        """Keep the queue position for ListRequests, and have the background give way."""
        # A request that finds its model loaded and a slot free reports neither phase.
        if self.on_wait is not None and progress.phase in ("queued", "loading"):
            self.on_wait()
        # Requests that wait for one load are all told of its progress and keep their order.
        if progress.phase != "loading":
            self.queue_position = progress.position if progress.phase == "queued" else 0
            self.arrival_position = self.arrival_position or self.queue_position
        if progress.phase == "loading" and progress.fraction < 1.0:
            self.phase = "loading"
        else:
            # The end of a load is told to those too that wait for a slot of the model.
            self.phase = "queued" if self.queue_position else "prefill"

    def on_prefill(self, progress: Progress) -> None:
        """Keep the number of prompt tokens. `progress` is an event of the answer itself."""
        self.prompt_tokens = progress.total_tokens

    def on_output(self, deltas: int) -> None:
        """Count deltas of the answer. Each counts as one token, which is near enough for ListRequests."""
        if deltas:
            if not self.output_tokens:
                self.first_output = time.monotonic()
            self.output_tokens += deltas
            self.phase = "decode"
            if self.arrivals is not None:
                self.arrivals += [time.monotonic()] * deltas

    def on_done(self, done: Done) -> None:
        """Keep counts, durations and reason of the answer."""
        self.usage, self.timings, self.reason = done.usage, done.timings, done.reason
        self.reasons = tuple(each.reason for each in done.choices) or (done.reason,) * bool(done.reason)

    def on_text(self, answer: Sequence[Event]) -> None:
        """Keep the deltas among the events of an answer, if a listener wants them."""
        if self.deltas is not None:
            self.deltas += [each for each in answer if isinstance(each, Delta)]
            self.deltas += [each.delta for each in answer if isinstance(each, Done)]


class Activity:
    """All requests under way, oldest first."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._idle = asyncio.Event()
        self._leaving = asyncio.Event()
        self._refusing = asyncio.Event()
        self.load: Final = LoadMeter()
        """How busy the requests under way keep the server."""
        self._in_front = 0
        self.background: Yielding = _NoWork()
        """The work that gives way to requests."""

    @property
    def busy(self) -> bool:
        """Whether a request that may run a model is under way. Those of batches do not count."""
        return self._in_front > 0

    @property
    def leaving(self) -> bool:
        """Whether the server is about to end. Balancers should send no more requests, though they may be accepted."""
        return self._leaving.is_set()

    @property
    def ending(self) -> bool:
        """Whether the server takes no more requests."""
        return self._refusing.is_set()

    def refuse(self) -> None:
        """Take no more requests."""
        self._leaving.set()
        self._refusing.set()

    async def refusing(self) -> None:
        """Wait until the server takes no more requests."""
        await self._refusing.wait()

    async def pause(self, seconds: float) -> None:
        """Wait for some seconds, but no longer than until `leaving` or `ending` changes."""
        change = self._refusing if self.leaving else self._leaving
        with suppress(TimeoutError):
            await asyncio.wait_for(change.wait(), seconds)

    @contextmanager
    def entered(self, model: str, method: str) -> Generator[Entry]:
        """List the current task's request for as long as the block lasts, and log it under its id.

        Raises ServerEndingError if the server takes no more requests.
        """
        # Draining counts on this check: after it begins, the table can only shrink.
        if self.ending:
            raise ServerEndingError
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("no task runs")
        id_ = request_log.call_id() or request_log.new_call_id()
        # Two clients may choose the same id, and CancelRequests must reach one of them alone.
        if id_ in self._entries:
            id_ = f"{id_}.{request_log.new_call_id()}"
        entry = Entry(id=id_, model=model, method=method, task=task)
        if events.wanted(events.AnswerTimed):
            entry.arrivals = []
        if events.wanted(events.AnswerEnded):
            entry.deltas = []
        self._entries[entry.id] = entry
        in_front = not (current().background or method in _APART)
        if in_front:
            self._in_front += 1
            entry.on_wait = self.background.on_wait
            self.background.on_begin()
        try:
            # A balancer sends requests here although a batch runs, since the batch gives way to them.
            counted = self.load.counted(method) if in_front else nullcontext()
            with request_log.grpc_call(entry.id, method, model), _published(entry), counted:
                yield entry
        finally:
            del self._entries[entry.id]
            self._in_front -= in_front
            if in_front and not self._in_front:
                self.background.on_idle()
            # An answer that was cut off has no counts. The tokens that it has sent are charged nevertheless.
            # A request of a batch that was interrupted is run again, and then charged.
            used = entry.usage or Usage(output_tokens=0 if current().background else entry.output_tokens)
            current().spend(used.prompt_tokens, used.output_tokens)
            # `drain` is the only waiter. It clears the event before it waits, so setting it at other times does no
            # harm.
            if not self._entries:
                self._idle.set()

    async def drain(self, seconds: float, delay: float = 0.0) -> None:
        """Take no more requests, let those under way finish for some seconds, and cancel the rest.

        `delay` is how many seconds requests are still taken first, while `leaving` is true. Returns when no request is
        left, or after LAST_GRACE more seconds.
        """
        self._leaving.set()
        self.background.on_idle()
        if delay > 0:
            await asyncio.sleep(delay)
        self.refuse()
        if await self._emptied(seconds):
            return
        # The flag is set before the cancellation, because the task reads it to choose between "shutting down" and
        # silence.
        for entry in self._entries.values():
            entry.ended = True
            entry.task.cancel()
        await self._emptied(LAST_GRACE)

    async def _emptied(self, seconds: float) -> bool:
        """Wait until no request is under way; return whether that happened in time."""
        # Without entries nothing would ever set the event.
        if self._entries:
            self._idle.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), seconds if seconds < math.inf else None)
        return not self._entries

    def entries(self, model: str = "") -> list[Entry]:
        """Return the requests, oldest first. `model` selects requests by the name that they sent; empty: all."""
        return [entry for entry in self._entries.values() if not model or entry.model == model]

    @property
    def tokens(self) -> int:
        """Tokens of prompts and answers of all requests under way: what fills KV caches."""
        return sum(entry.prompt_tokens + entry.output_tokens for entry in self._entries.values())

    def cancel(self, id_: str) -> bool:
        """Cancel a request; return whether there was one to cancel."""
        entry = self._entries.get(id_)
        # A second cancellation of one task would interrupt the clean-up that the first one started.
        if entry is None or entry.cancelled:
            return False
        entry.cancelled = True
        entry.task.cancel()
        return True


@contextmanager
def _published(entry: Entry) -> Generator[None]:
    """Publish the events about the end of a request when the block ends."""
    began = time.monotonic()
    failure: BaseException | None = None
    if events.wanted(events.RequestBegan):
        events.publish(_began(entry))
    try:
        yield
    except BaseException as error:
        failure = error
        raise
    finally:
        if entry.deltas:
            events.publish(events.AnswerEnded(tuple(entry.deltas)))
        if entry.arrivals:
            arrivals = tuple(moment - began for moment in entry.arrivals)
            events.publish(events.AnswerTimed(model=entry.model, arrivals=arrivals))
        if events.wanted(events.RequestEnded):
            events.publish(_ended(entry, began, failure))


def _began(entry: Entry) -> events.RequestBegan:
    caller = current()
    return events.RequestBegan(
        id=entry.id,
        model=entry.model,
        method=entry.method,
        key=caller.key.name if caller.key is not None else "",
        key_id=caller.key.id if caller.key is not None else "",
        batch=caller.batch,
        http_route=request_log.http_route(),
        start_ns=entry.start_ns,
    )


def _ended(entry: Entry, began: float, failure: BaseException | None) -> events.RequestEnded:
    """Return the event about the end of a request that began at a monotonic time."""
    used, times, key = entry.usage or Usage(output_tokens=entry.output_tokens), entry.timings, current().key
    return events.RequestEnded(
        id=entry.id,
        model=entry.model,
        method=entry.method,
        key=key.name if key is not None else "",
        outcome=_outcome(entry, failure),
        failed=failure is not None or entry.cancelled,
        error=str(failure) if isinstance(failure, PunaError) else "",
        arrival_position=entry.arrival_position,
        phase=entry.phase,
        seconds=time.monotonic() - began,
        queue_seconds=times.queue_ns / 1e9,
        load_seconds=times.load_ns / 1e9,
        prefill_seconds=times.prompt_eval_ns / 1e9,
        decode_seconds=times.eval_ns / 1e9,
        prompt_tokens=used.prompt_tokens,
        cached_tokens=used.cached_prompt_tokens,
        output_tokens=used.output_tokens,
        truncated_tokens=used.truncated_tokens,
        draft_tokens=used.draft_tokens,
        accepted_draft_tokens=used.accepted_draft_tokens,
        vectors=entry.vectors,
        reasons=entry.reasons,
        first_token_seconds=entry.first_output - began if entry.first_output else 0.0,
        traceparent=request_metadata().get("traceparent", ""),
    )


def _outcome(entry: Entry, failure: BaseException | None) -> str:
    if isinstance(failure, PunaError):
        return failure.reason
    if entry.cancelled or isinstance(failure, asyncio.CancelledError):
        return ServerEndingError.reason if entry.ended else "CANCELLED"
    return "INTERNAL" if failure is not None else entry.reason
