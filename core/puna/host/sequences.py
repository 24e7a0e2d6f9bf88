"""The sequences of one Run stream.

Theory. Each sequence is a task that iterates over the plugin's generator. One decoding step of a batching engine feeds
many sequences at once; their tasks then run within the same turn of the event loop. Their events are gathered until the
turn is over and are sent in one message. A cancel is not confirmed: the events of a cancelled sequence that are not
sent yet are dropped, and a cancel for a sequence that has ended is ignored.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from dataclasses import dataclass

from puna.backend import Finish, LoadedModel
from puna.backend.v1 import backend_pb2 as wire
from puna.blocking import retrieve_exception
from puna.host.convert import error_to_wire, event_to_wire, sequence_from_wire
from puna.traceback_summary import summarize

log = logging.getLogger(__name__)


@dataclass(slots=True)
class SequenceCounts:
    """Counts over all streams of a host. The heartbeat uses them for models that have no step number."""

    running: int = 0
    events: int = 0
    """Number of events of all sequences since the host started."""


class Sequences:
    """Starts and cancels sequences as the core requests, and yields their events."""

    def __init__(self, model: LoadedModel, counts: SequenceCounts | None = None) -> None:
        """`counts` is shared with the other streams of the host."""
        self._model = model
        self._counts = counts or SequenceCounts()
        self._running: dict[int, asyncio.Task[None]] = {}
        self._ready: list[wire.SequenceEvent] = []
        self._wakeup = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    async def run(self, requests: AsyncIterable[wire.RunRequest]) -> AsyncGenerator[wire.RunResponse]:
        """Follow the requests until they and all sequences have ended, yielding the events of each turn of the loop.

        Closing the generator cancels every sequence.
        """
        self._reading = asyncio.create_task(self._read(requests))
        self._reading.add_done_callback(retrieve_exception)
        try:
            # The stream ends only after all events are sent, also those of sequences that end after the core has closed
            # its side.
            while not (self._reading.done() and not self._running and not self._ready):
                await self._wakeup.wait()
                # One decoding step wakes many tasks. They run during this pause, and their events join this message.
                await asyncio.sleep(0)
                self._wakeup.clear()
                if self._ready:
                    events, self._ready = self._ready, []
                    yield wire.RunResponse(events=events)
            # Raises what broke the stream of requests.
            self._reading.result()
        finally:
            await self._end()

    async def _read(self, requests: AsyncIterable[wire.RunRequest]) -> None:
        try:
            async for request in requests:
                if request.WhichOneof("event") == "start":
                    self._start(request.sequence_id, request.start)
                else:
                    self._cancel(request.sequence_id)
        finally:
            self._wakeup.set()

    def _start(self, sequence_id: int, start: wire.StartSequence) -> None:
        task = asyncio.create_task(self._generate(sequence_id, start))
        self._running[sequence_id] = task
        # Incremented here and not in the task, so that a sequence counts as work before its first step.
        self._counts.running += 1
        task.add_done_callback(lambda _: self._ended(sequence_id))

    def _cancel(self, sequence_id: int) -> None:
        """Cancel a sequence. Does nothing if it has ended: its end may have crossed the cancel."""
        if (task := self._running.get(sequence_id)) is not None:
            task.cancel()
            # The core no longer knows the sequence, so its events would be dropped there.
            self._ready = [event for event in self._ready if event.sequence_id != sequence_id]

    def _ended(self, sequence_id: int) -> None:
        # A callback of the task, so that it also runs for a task that is cancelled before its first step.
        del self._running[sequence_id]
        self._counts.running -= 1
        self._wakeup.set()

    async def _generate(self, sequence_id: int, start: wire.StartSequence) -> None:
        try:
            async with aclosing(self._model.generate(sequence_from_wire(start))) as events:
                async for event in events:
                    self._emit(event_to_wire(sequence_id, event))
                    if isinstance(event, Finish):
                        return
                    # A generator that never waits must not block the other sequences or the cancel.
                    await asyncio.sleep(0)
            raise RuntimeError("the backend's generator ended without a Finish")
        except Exception as error:  # a plugin may raise anything; the error ends this sequence alone
            failure = error_to_wire(error)
            if failure.kind == wire.Failure.KIND_UNSPECIFIED:
                log.error("the backend failed in a sequence: %s", summarize(error))
            self._emit(wire.SequenceEvent(sequence_id=sequence_id, failure=failure))

    def _emit(self, event: wire.SequenceEvent) -> None:
        self._ready.append(event)
        self._counts.events += 1
        self._wakeup.set()

    async def _end(self) -> None:
        tasks = list(self._running.values())
        if self._reading is not None:
            tasks.append(self._reading)
        for task in tasks:
            task.cancel()
        # The model must not be freed while a generator is open, so the tasks are waited for.
        await asyncio.gather(*tasks, return_exceptions=True)
