"""Several answers to one request: `n` sequences on one lease, whose events become one stream.

Theory. The sequences have the same prompt and are submitted together. A backend that shares prefixes evaluates the
prompt for the first of them and copies its KV cells to the others. Each sequence waits for a slot of its own, so those
that find none follow when one is free.

Each answer is an async generator, which a task of its own drains into one bounded queue. The bound makes a client that
reads slowly slow its own answers down. Events keep their order within an answer. The first failure ends all answers,
and closing the stream ends all tasks and waits for them, so no sequence outlives the request.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace

from puna.events import choice as current_choice
from puna.serving.answers import ChoiceDone, Delta, Done, Event, Timings, Usage

QUEUED_EVENTS = 64
"""Events of all answers together that wait for the reader."""


def answers(make: Callable[[int], AsyncGenerator[Event]], n: int) -> AsyncGenerator[Event]:
    """Return the events of `n` answers, with one Done for all of them. `make` returns the events of one by its index.

    A single answer is passed on as it is. Of several, each has its index in its deltas and ends with a ChoiceDone, and
    progress is that of the first. Raises what the first failing answer raises.
    """
    # A stream of one answer must not pay for another generator around it.
    return make(0) if n == 1 else _several(make, n)


async def _several(make: Callable[[int], AsyncGenerator[Event]], n: int) -> AsyncGenerator[Event]:
    ends: list[ChoiceDone] = []
    failed: list[asyncio.Task[None]] = []
    queue: asyncio.Queue[Event | None] = asyncio.Queue(QUEUED_EVENTS)

    def ended(task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is not None:
            failed.append(task)
            # Wakes the reader. With a full queue it is awake.
            with suppress(asyncio.QueueFull):
                queue.put_nowait(None)

    tasks = [asyncio.create_task(_drain(make(choice), choice, queue)) for choice in range(n)]
    for task in tasks:
        task.add_done_callback(ended)
    try:
        while len(ends) < n:
            event = await queue.get()
            if failed:
                failed[0].result()
            if isinstance(event, ChoiceDone):
                ends.append(event)
            if event is not None:
                yield event
    finally:
        for task in tasks:
            task.cancel()
        # The generators are closed inside the tasks, and the lease must not end before them.
        await asyncio.wait(tasks)
    yield _done(sorted(ends, key=lambda end: end.choice))


async def _drain(events: AsyncGenerator[Event], choice: int, queue: "asyncio.Queue[Event | None]") -> None:
    """Put the events of one answer into the queue."""
    current_choice.set(choice)
    called = False
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Delta):
                called = called or bool(event.tool_calls)
                await queue.put(replace(event, choice=choice))
            elif isinstance(event, Done):
                # The text or the calls that were held back to the end.
                if event.delta != Delta():
                    called = called or bool(event.delta.tool_calls)
                    await queue.put(replace(event.delta, choice=choice))
                end = ChoiceDone(
                    choice=choice,
                    reason=event.reason,
                    called=called,
                    stop_sequence=event.stop_sequence,
                    usage=event.usage,
                    timings=event.timings,
                )
                await queue.put(end)
            elif choice == 0:
                await queue.put(event)


def _done(ends: Sequence[ChoiceDone]) -> Done:
    usages = [end.usage for end in ends]
    first = ends[0]
    usage = Usage(
        prompt_tokens=first.usage.prompt_tokens,
        # The others find cached what the first of them has evaluated.
        cached_prompt_tokens=min(each.cached_prompt_tokens for each in usages),
        output_tokens=sum(each.output_tokens for each in usages),
        truncated_tokens=first.usage.truncated_tokens,
        draft_tokens=sum(each.draft_tokens for each in usages),
        accepted_draft_tokens=sum(each.accepted_draft_tokens for each in usages),
        thinking_tokens=sum(each.thinking_tokens for each in usages),
    )
    return Done(
        reason=first.reason,
        stop_sequence=first.stop_sequence,
        usage=usage,
        # The answers run beside each other, so the longest duration is that of all.
        timings=Timings(
            total_ns=max(end.timings.total_ns for end in ends),
            load_ns=first.timings.load_ns,
            prompt_eval_ns=max(end.timings.prompt_eval_ns for end in ends),
            eval_ns=max(end.timings.eval_ns for end in ends),
            queue_ns=min(end.timings.queue_ns for end in ends),
        ),
        choices=tuple(ends),
    )
