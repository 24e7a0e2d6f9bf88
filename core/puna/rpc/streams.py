"""The way from an answer's events to the messages of a call.

CancelRequests cancels the task of a request. If the answer has output by then, the client keeps that output and gets an
end with the reason CANCELLED. Otherwise the cancellation goes on, and the call ends with the status CANCELLED.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Final, Protocol, TypeVar

from puna.rpc.answers import CANCELLED, TOOL_CALLS
from puna.rpc.batches import AHEAD, batches
from puna.rpc.error_boundary import Context
from puna.rpc.inprocess import InProcessStream
from puna.rpc.writing import AnswerContext
from puna.serving.activity import Entry
from puna.serving.answers import ChoiceDone, Delta, Done, Event, Progress, Timings, Usage
from puna_client.v1 import chat_pb2, generate_pb2

Message = TypeVar("Message", chat_pb2.StreamChatResponse, generate_pb2.StreamGenerateResponse)
MESSAGE_SECONDS: Final = 0.004
"""Time between two messages with deltas on a socket. Models that are about as slow send each delta at once."""


async def collected(events: AsyncGenerator[Event], entry: Entry) -> tuple[list[Delta], Done]:
    """Return all deltas and the end of an answer. Cancellation closes `events` first."""
    deltas: list[Delta] = []
    try:
        async with aclosing(events):
            async for event in events:
                entry.on_text((event,))
                if isinstance(event, Done):
                    entry.on_done(event)
                    return deltas, with_reason(event, called=any(delta.tool_calls for delta in deltas))
                if isinstance(event, Delta):
                    entry.on_output(1)
                    deltas.append(event)
                elif isinstance(event, Progress):
                    entry.on_prefill(event)
    except asyncio.CancelledError:
        if not _keeps_output(entry):
            raise
        last = max(delta.choice for delta in deltas)
        choices = tuple(ChoiceDone(choice=choice, reason=CANCELLED) for choice in range(last + 1)) if last else ()
        return deltas, replace(_cancelled(entry), choices=choices)
    raise RuntimeError("the answer ended without a Done")


def with_reason(done: Done, *, called: bool) -> Done:
    """Return the end with the reason for gRPC clients. `called`: whether a delta before it has tool calls."""
    if done.choices:  # the reason is that of the first of several answers
        called = done.choices[0].called
    if done.reason == "stop" and (called or done.delta.tool_calls):
        return replace(done, reason=TOOL_CALLS)
    return done


def _keeps_output(entry: Entry) -> bool:
    """Return whether a cancelled call still gets an end, and stop its cancellation if so."""
    task = asyncio.current_task()
    # A second cancellation is that of the client, which has hung up.
    if task is None or not entry.cancelled or entry.ended or not entry.output_tokens or task.cancelling() != 1:
        return False
    task.uncancel()
    return True


def _cancelled(entry: Entry) -> Done:
    """Return the end of an answer that CancelRequests ended. The backend has sent no counts."""
    timings = Timings(total_ns=time.time_ns() - entry.start_ns)
    return Done(reason=CANCELLED, usage=Usage(output_tokens=entry.output_tokens), timings=timings)


def weight_of_deltas(deltas: list[Delta]) -> int:
    """Return the cost of translating the deltas, for puna.offload."""
    return len(deltas) + sum(2 + len(each.top) for delta in deltas for each in delta.logprobs)


def _pause_after(event: Event) -> float:
    return MESSAGE_SECONDS if isinstance(event, Delta) else 0.0


class Filler(Protocol[Message]):
    """Translates events into a message."""

    def __call__(self, events: list[Event], message: Message | None = None, /) -> Message:
        """Add events to a message, or to a new one, and return it."""


class _Outgoing:
    """The record of an answer while it is sent."""

    def __init__(self, entry: Entry, *, omit_progress: bool) -> None:
        self.entry = entry
        self.omit_progress = omit_progress
        self.ended = False
        self.writing = False
        """True while a message waits until the client reads."""
        self._called = False

    def on_progress(self, news: Event) -> bool:
        """Note an event that is no part of the answer itself. Return whether it is written."""
        if isinstance(news, Progress):
            self.entry.on_progress(news)
        return not self.omit_progress

    def sent(self, batch: list[Event]) -> list[Event]:
        """Note the next events of the answer. Return those that are written."""
        # Most batches of the bridge are one token.
        if len(batch) == 1 and isinstance(delta := batch[0], Delta) and not delta.tool_calls:
            self.entry.on_output(1)
            self.entry.on_text(batch)
            return batch
        deltas = 0
        for event in batch:
            if isinstance(event, Delta):
                deltas += 1
                self._called = self._called or bool(event.tool_calls)
            elif isinstance(event, Progress) and event.phase == "prefill" and not self.entry.output_tokens:
                self.entry.on_prefill(event)
        self.entry.on_output(deltas)
        self.entry.on_text(batch)
        # Done is the last event, so it can only be the last of a batch.
        if isinstance(last := batch[-1], Done):
            self.ended = True
            self.entry.on_done(last)
            batch[-1] = with_reason(last, called=self._called)
        # The answer itself has events of the prefill.
        return [event for event in batch if not isinstance(event, Progress)] if self.omit_progress else batch


async def written(
    answer: Callable[[Callable[[Event], None]], AsyncGenerator[Event]],
    fill: Filler[Message],
    context: Context,
    entry: Entry,
    *,
    omit_progress: bool = False,
) -> None:
    """Write an answer to a call while it is made, with its progress events. Cancellation closes the answer first.

    `answer` returns the events; its argument takes progress events. `fill` translates a batch of events. With
    `omit_progress`, no progress is written. RuntimeError: the events ended without a Done.
    """
    outgoing = _Outgoing(entry, omit_progress=omit_progress)
    try:
        if isinstance(context, InProcessStream):
            await _handed_over(answer, fill, context, outgoing)
        else:
            await _sent(answer, fill, context, outgoing)
    except asyncio.CancelledError:
        # gRPC takes no message while an earlier one is being written, which may take until the client reads.
        if outgoing.writing or not _keeps_output(entry):
            raise
        outgoing.ended = True
        await context.write(fill([_cancelled(entry)]))
    if not outgoing.ended:
        raise RuntimeError("the answer ended without a Done")


async def _sent(
    answer: Callable[[Callable[[Event], None]], AsyncGenerator[Event]],
    fill: Filler[Message],
    context: Context,
    outgoing: _Outgoing,
) -> None:
    """Write an answer to a socket. What becomes ready while a message is written makes the next one."""

    def started(tell: Callable[[Event], None]) -> AsyncGenerator[Event]:
        def on_progress(news: Event) -> None:
            if outgoing.on_progress(news):
                tell(news)

        return answer(on_progress)

    pause = _pause_after if isinstance(context, AnswerContext) else None
    async with aclosing(batches(started, pause)) as together:
        async for batch in together:
            if events := outgoing.sent(batch):
                outgoing.writing = True
                await context.write(fill(events))
                outgoing.writing = False


async def _handed_over(
    answer: Callable[[Callable[[Event], None]], AsyncGenerator[Event]],
    fill: Filler[Message],
    stream: InProcessStream[Message],
    outgoing: _Outgoing,
) -> None:
    """Hand an answer over to the bridge in this process, at once and without a task and a queue in between.

    What becomes ready while the bridge writes is added to the next message, which it has not taken yet.
    """

    def tell(news: Event) -> None:
        if outgoing.on_progress(news):
            untaken = stream.untaken()
            message = fill([news], untaken)
            if untaken is None:
                stream.offer(message)

    async with aclosing(answer(tell)) as events:
        async for event in events:
            if not (batch := outgoing.sent([event])):
                continue
            untaken = stream.untaken()
            if untaken is not None and len(untaken.deltas) < AHEAD:
                fill(batch, untaken)
            else:
                # Waits while the reader is far behind, as `batches` does.
                outgoing.writing = True
                await stream.write(fill(batch))
                outgoing.writing = False
