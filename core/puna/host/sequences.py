"""The sequences of one Run stream.

Theory. Each sequence is a task that iterates over the plugin's generator. One decoding step of a batching engine feeds
many sequences at once; their tasks then run within the same turn of the event loop. The first event of a turn schedules
a call in the next turn, which sends all of them in one message. A cancel is not confirmed: the events of a cancelled
sequence that are not sent yet are dropped, and a cancel for a sequence that has ended is ignored.

A turn of the loop costs as much as the rest of a token's way. A sequence whose generator waits for its next event gives
way to the others by itself. One that has its next event at once goes on within the turn for TURN_SECONDS at most.

A single text to embed is a sequence too, with one event.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine
from contextlib import aclosing
from typing import Any, Final, TypeVar

from puna.backend import Finish
from puna.backend.metadata import enter_request
from puna.backend.v1 import backend_pb2 as wire
from puna.blocking import retrieve_exception
from puna.host.convert import add_event, embedding_to_wire, error_to_wire, input_from_wire, sequence_from_wire
from puna.host.models import Models
from puna.host.plugin_call import Work, check_embeddings
from puna.host.report import report_error

T = TypeVar("T")

TURN_SECONDS: Final = 0.0005
"""How long a sequence may yield events without a turn of the event loop: that of several accepted draft tokens."""


class Sequences:
    """Starts and cancels sequences as the core requests, and sends their events."""

    def __init__(self, models: Models, work: Work | None = None) -> None:
        """`models` and `work` are those of the host, which its other streams and calls share."""
        self._models = models
        self._work = work or Work()
        self._running: dict[int, asyncio.Task[None]] = {}
        # A plugin may raise CancelledError of its own, so only this set tells what the core has cancelled.
        self._cancelled: set[int] = set()
        self._ready = wire.RunResponse()
        """The events that are not sent yet."""
        self._turn = 0
        """Number of turns of the loop that were asked for so far."""
        self._scheduled = False
        """True from the scheduling of `_look` until its call."""
        self._loop = asyncio.get_running_loop()
        self._on_ready: Callable[[], object] = lambda: None
        self._finished: asyncio.Future[None] = self._loop.create_future()
        """Done when the requests and all sequences have ended, or sending has failed."""
        self._reading: asyncio.Task[None] | None = None

    async def run(self, requests: AsyncIterable[wire.RunRequest], send: Callable[[wire.RunResponse], None]) -> None:
        """Follow the requests until they and all sequences have ended. `send` gets the events of each turn of the loop.

        Cancelling it cancels every sequence and waits for their ends.
        """
        await self._follow(requests, lambda: send(self._taken()))

    async def responses(self, requests: AsyncIterable[wire.RunRequest]) -> AsyncGenerator[wire.RunResponse]:
        """Do what `run` does, and yield the events. Those that become ready while the reader is busy come together.

        Closing the generator cancels every sequence and waits for their ends.
        """
        news = asyncio.Event()
        following = asyncio.create_task(self._follow(requests, news.set))
        following.add_done_callback(retrieve_exception)
        following.add_done_callback(lambda _: news.set())
        try:
            while self._ready.events or not following.done():
                await news.wait()
                news.clear()
                if self._ready.events:
                    yield self._taken()
            following.result()
        finally:
            following.cancel()
            await asyncio.wait({following})

    def _taken(self) -> wire.RunResponse:
        taken, self._ready = self._ready, wire.RunResponse()
        return taken

    async def _follow(self, requests: AsyncIterable[wire.RunRequest], on_ready: Callable[[], object]) -> None:
        self._on_ready = on_ready
        self._reading = asyncio.create_task(self._read(requests))
        self._reading.add_done_callback(retrieve_exception)
        try:
            await self._finished
            # Raises what broke the stream of requests.
            self._reading.result()
        finally:
            await self._end()

    async def _read(self, requests: AsyncIterable[wire.RunRequest]) -> None:
        try:
            async for request in requests:
                kind = request.WhichOneof("event")
                if kind == "start":
                    self._start(request.sequence_id, request.start.model_id, self._generate, request.start)
                elif kind == "embed":
                    self._start(request.sequence_id, request.embed.model_id, self._embed, request.embed)
                else:
                    self._cancel(request.sequence_id)
        finally:
            self._wake()

    def _start(
        self, sequence_id: int, model_id: str, run: Callable[[int, T, int], Coroutine[Any, Any, None]], start: T
    ) -> None:
        # Counted here and not in the task, so that a sequence counts as work before its first step.
        work = self._work.begin(model_id)
        task = asyncio.create_task(run(sequence_id, start, work))
        self._running[sequence_id] = task
        task.add_done_callback(lambda _: self._ended(sequence_id, work))

    def _cancel(self, sequence_id: int) -> None:
        """Cancel a sequence. Does nothing if it has ended: its end may have crossed the cancel."""
        if (task := self._running.get(sequence_id)) is not None:
            self._cancelled.add(sequence_id)
            task.cancel()
            # The core no longer knows the sequence, so its events would be dropped there.
            self._ready = wire.RunResponse(events=(e for e in self._ready.events if e.sequence_id != sequence_id))

    def _ended(self, sequence_id: int, work: int) -> None:
        # A callback of the task, so that it also runs for a task that is cancelled before its first step. A plugin that
        # does not let its generator be closed never gets here, and its work counts as hung.
        del self._running[sequence_id]
        self._cancelled.discard(sequence_id)
        self._work.end(work)
        self._wake()

    async def _generate(self, sequence_id: int, start: wire.StartSequence, work: int) -> None:
        finished = False
        turn, since = -1, 0.0
        enter_request(start.metadata)
        try:
            with self._models.use(start.model_id) as model:
                events = model.generate(sequence_from_wire(start))
                if not isinstance(events, AsyncGenerator):
                    raise TypeError(f"generate must be an async generator, and it returned a {type(events).__name__}")
                async with aclosing(events):
                    async for event in events:
                        if turn != self._turn:
                            turn, since = self._turn, time.monotonic()
                        elif time.monotonic() - since > TURN_SECONDS:
                            # A generator that never waits must not block the other sequences or the cancel.
                            await asyncio.sleep(0)
                            turn = -1
                        # A plugin may catch the CancelledError and go on.
                        if sequence_id in self._cancelled:
                            return
                        add_event(self._ready, sequence_id, event)
                        self._wake()
                        self._work.step(work)
                        if isinstance(event, Finish):
                            finished = True
                            return
            raise RuntimeError("the backend's generator ended without a Finish")
        # A plugin may raise anything, KeyboardInterrupt and CancelledError too; the error ends this sequence alone.
        except BaseException as error:
            self._fail(sequence_id, error, f" in a sequence{self._models.owner(start.model_id)}", ended=finished)

    async def _embed(self, sequence_id: int, start: wire.StartEmbedding, _work: int) -> None:
        enter_request(start.metadata)
        try:
            with self._models.use(start.model_id) as model:
                found = check_embeddings(await model.embed([input_from_wire(start.input)], raw=start.raw))
                if len(found) != 1:
                    raise ValueError(f"embed returned {len(found)} vectors for one text")
                event = wire.SequenceEvent(sequence_id=sequence_id, embedding=embedding_to_wire(found[0]))
            # A plugin may catch the CancelledError and return.
            if sequence_id not in self._cancelled:
                self._emit(event)
        except BaseException as error:  # as in `_generate`
            self._fail(sequence_id, error, self._models.owner(start.model_id))

    def _fail(self, sequence_id: int, error: BaseException, where: str, *, ended: bool = False) -> None:
        """Send the failure of a sequence, unless the core has cancelled it or knows its end. Log a plugin's fault."""
        if sequence_id in self._cancelled and issubclass(type(error), asyncio.CancelledError):
            return
        failure = error_to_wire(error)
        if failure.kind == wire.Failure.KIND_UNSPECIFIED:
            report_error(f"the backend failed{where}", error)
        # Nothing follows a Finish, and the core does not wait for a cancelled sequence.
        if not ended and sequence_id not in self._cancelled:
            self._emit(wire.SequenceEvent(sequence_id=sequence_id, failure=failure))

    def _emit(self, event: wire.SequenceEvent) -> None:
        self._ready.events.append(event)
        self._wake()

    def _wake(self) -> None:
        """Have events and ends looked for in the next turn of the loop."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        self._scheduled = False
        self._turn += 1
        try:
            if self._ready.events:
                self._on_ready()
        # Nothing else would see an exception of this callback.
        except Exception as error:
            if not self._finished.done():
                self._finished.set_exception(error)
        # The stream ends only after all events are sent, also those of sequences that end after the core has closed its
        # side.
        if self._reading is not None and self._reading.done() and not self._running and not self._finished.done():
            self._finished.set_result(None)

    async def _end(self) -> None:
        tasks = list(self._running.values())
        self._cancelled.update(self._running)
        if self._reading is not None:
            tasks.append(self._reading)
        for task in tasks:
            task.cancel()
        # The model must not be freed while a generator is open, so the tasks are waited for.
        await asyncio.gather(*tasks, return_exceptions=True)
