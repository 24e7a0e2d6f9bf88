"""An answer's events onto a call: one message for all that is there."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeVar

from puna.rpc.batches import batches
from puna.rpc.wall import Context
from puna.serving.activity import Entry
from puna.serving.answers import Delta, Done, Event, Progress

Message = TypeVar("Message")


async def collected(events: AsyncGenerator[Event], entry: Entry) -> tuple[list[Delta], Done]:
    """Return all of an answer. Being cancelled closes `events` first."""
    deltas: list[Delta] = []
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Done):
                return deltas, event
            if isinstance(event, Delta):
                entry.output_tokens += 1
                deltas.append(event)
    raise RuntimeError("the answer has no end")


def weight_of_deltas(deltas: list[Delta]) -> int:
    """Return what it weighs to write them at once, for puna.offload."""
    return len(deltas) + sum(2 + len(each.top) for delta in deltas for each in delta.logprobs)


async def written(
    answer: Callable[[Callable[[Event], None]], AsyncGenerator[Event]],
    message: Callable[[list[Event]], Message],
    context: Context,
    entry: Entry,
) -> None:
    """Write an answer as it comes, with the news that it tells. Being cancelled closes it first.

    RuntimeError: the answer stopped without a Done.
    """
    ended = False

    def started(tell: Callable[[Event], None]) -> AsyncGenerator[Event]:
        def on_progress(news: Event) -> None:
            if isinstance(news, Progress):
                entry.on_progress(news)
            tell(news)

        return answer(on_progress)

    async with aclosing(batches(started)) as together:
        async for batch in together:
            entry.output_tokens += sum(isinstance(event, Delta) for event in batch)
            ended = isinstance(batch[-1], Done)
            await context.write(message(batch))
    if not ended:
        raise RuntimeError("the answer has no end")
