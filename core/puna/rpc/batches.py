"""Batching of stream items: items that are ready at the same time travel in one message."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import Final, TypeVar

from puna.blocking import retrieve_exception

T = TypeVar("T")

AHEAD: Final = 256
"""Items that are read ahead of a slow reader. Beyond them the source waits."""


async def batches(make: Callable[[Callable[[T], None]], AsyncGenerator[T]]) -> AsyncGenerator[list[T]]:
    """Yield the items of a source in order, in lists of all items that are ready. A list is never waited for to fill.

    `make` returns the source. Its argument is a function that inserts an item; the item is dropped if the reader is far
    behind. An exception of the source is raised after the items before it. Closing this generator closes the source and
    waits for it.
    """
    ready: asyncio.Queue[T | None] = asyncio.Queue(AHEAD)

    def tell(item: T) -> None:
        with suppress(asyncio.QueueFull):
            ready.put_nowait(item)

    source = make(tell)

    async def draw() -> None:
        try:
            async with aclosing(source):
                async for item in source:
                    # Waits while the reader is far behind. So a client that does not read slows its own model down, and
                    # no other one.
                    await ready.put(item)
        finally:
            with suppress(asyncio.QueueFull):  # the reader takes the remaining items before this end
                ready.put_nowait(None)

    drawing = asyncio.create_task(draw())
    drawing.add_done_callback(retrieve_exception)
    try:
        while True:
            batch: list[T] = []
            # Without the check, a reader that took the end together with items would wait here for ever.
            item = None if drawing.done() and ready.empty() else await ready.get()
            while item is not None:
                batch.append(item)
                if ready.empty():
                    break
                item = ready.get_nowait()
            if batch:
                yield batch
            if drawing.done() and ready.empty():
                break
    finally:
        drawing.cancel()
        await asyncio.wait({drawing})
    # Raised after the last item, so that a client gets the text that came before the error.
    drawing.result()
