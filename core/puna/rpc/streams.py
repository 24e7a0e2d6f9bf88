"""The way from an answer's events to the messages of a call.

CancelRequests cancels the task of a request. If the answer has output by then, the client keeps that output and gets an
end with the reason CANCELLED. Otherwise the cancellation goes on, and the call ends with the status CANCELLED.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Final, TypeVar

from puna.rpc.answers import CANCELLED, TOOL_CALLS
from puna.rpc.batches import batches
from puna.rpc.error_boundary import Context
from puna.rpc.writing import AnswerContext
from puna.serving.activity import Entry
from puna.serving.answers import ChoiceDone, Delta, Done, Event, Progress, Timings, Usage

Message = TypeVar("Message")
MESSAGE_SECONDS: Final = 0.004
"""Least time between two messages with deltas on a socket. Models that are slower send each delta at once."""


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


async def written(
    answer: Callable[[Callable[[Event], None]], AsyncGenerator[Event]],
    message: Callable[[list[Event]], Message],
    context: Context,
    entry: Entry,
    *,
    omit_progress: bool = False,
) -> None:
    """Write an answer to a call while it is made, with its progress events. Cancellation closes the answer first.

    `answer` returns the events; its argument takes progress events. `message` translates a batch of events. With
    `omit_progress`, no progress is written. RuntimeError: the events ended without a Done.
    """
    ended = called = writing = False

    def started(tell: Callable[[Event], None]) -> AsyncGenerator[Event]:
        def on_progress(news: Event) -> None:
            if isinstance(news, Progress):
                entry.on_progress(news)
            if not omit_progress:
                tell(news)

        return answer(on_progress)

    try:
        # The bridge in this process has no message to save, and Ollama writes each line by itself.
        pause = _pause_after if isinstance(context, AnswerContext) else None
        async with aclosing(batches(started, pause)) as together:
            async for batch in together:
                deltas = 0
                for event in batch:
                    if isinstance(event, Delta):
                        deltas += 1
                        called = called or bool(event.tool_calls)
                    elif isinstance(event, Progress) and event.phase == "prefill" and not entry.output_tokens:
                        entry.on_prefill(event)
                entry.on_output(deltas)
                entry.on_text(batch)
                # Done is the last event, so it can only be the last of a batch.
                if isinstance(last := batch[-1], Done):
                    ended = True
                    entry.on_done(last)
                    batch[-1] = with_reason(last, called=called)
                # The answer itself has events of the prefill.
                if omit_progress and not (batch := [event for event in batch if not isinstance(event, Progress)]):
                    continue
                writing = True
                await context.write(message(batch))
                writing = False
    except asyncio.CancelledError:
        # gRPC takes no message while an earlier one is being written, which may take until the client reads.
        if writing or not _keeps_output(entry):
            raise
        ended = True
        await context.write(message([_cancelled(entry)]))
    if not ended:
        raise RuntimeError("the answer ended without a Done")
