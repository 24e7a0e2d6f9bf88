"""The sequences of one Run stream: each a task over the plugin's generator, their news gathered by turns."""

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
    """Counts of a host's sequences and their events over all of its streams."""

    running: int = 0
    events: int = 0
    """Of all sequences since the start."""


class Sequences:
    """Starts and cancels sequences as told, and hands out what they make. Leaving the context ends all of them.

    Decoding steps of a batching engine feed many sequences at once. Their tasks then run within one turn of the event
    loop, so what they make is gathered until the turn is over and travels as one message.
    """

    def __init__(self, model: LoadedModel, counts: SequenceCounts | None = None) -> None:
        """`pulse`: where they are counted with those of other streams."""
        self._model = model
        self._counts = counts or SequenceCounts()
        self._running: dict[int, asyncio.Task[None]] = {}
        self._ready: list[wire.SequenceEvent] = []
        self._wakeup = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    async def run(self, requests: AsyncIterable[wire.RunRequest]) -> AsyncGenerator[wire.RunResponse]:
        """Follow the requests until they end and every sequence has, yielding the news of each turn."""
        self._reading = asyncio.create_task(self._read(requests))
        self._reading.add_done_callback(retrieve_exception)
        try:
            while not (self._reading.done() and not self._running and not self._ready):
                await self._wakeup.wait()
                await asyncio.sleep(0)  # whoever was woken by the same step comes along
                self._wakeup.clear()
                if self._ready:
                    events, self._ready = self._ready, []
                    yield wire.RunResponse(events=events)
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
        self._counts.running += 1
        task.add_done_callback(lambda _: self._ended(sequence_id))

    def _cancel(self, sequence_id: int) -> None:
        """Stop a sequence. One that has ended, or never was, is none of our business: the end may cross the cancel."""
        if (task := self._running.get(sequence_id)) is not None:
            task.cancel()
            self._ready = [event for event in self._ready if event.sequence_id != sequence_id]

    def _ended(self, sequence_id: int) -> None:
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
                    await asyncio.sleep(0)  # a generator that never waits must not keep the others and the cancel out
            raise RuntimeError("the backend's generator ended without a Finish")
        except Exception as error:  # whatever a plugin raises ends this sequence alone
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
        await asyncio.gather(*tasks, return_exceptions=True)
