"""Batching of stream items: items that are ready at the same time travel in one message."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final, TypeVar

from puna.blocking import retrieve_exception
from puna.spsc_queue import SpscQueue

T = TypeVar("T")

AHEAD: Final = 256
"""Items that are read ahead of a slow reader. Beyond them the source waits."""


async def batches(make: Callable[[Callable[[T], None]], AsyncGenerator[T]]) -> AsyncGenerator[list[T]]:
    """Yield the items of a source in order, in lists of all items that are ready. A list is never waited for to fill.

    `make` returns the source. Its argument is a function that inserts an item; the item is dropped if the reader is far
    behind. An exception of the source is raised after the items before it. Closing this generator closes the source and
    waits for it.
    """
    ready: SpscQueue[T | None] = SpscQueue(AHEAD)

    def tell(item: T) -> None:
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
            ready.put_nowait(None)  # a full queue needs no end: the reader takes its items first

    drawing = asyncio.create_task(draw())
    drawing.add_done_callback(retrieve_exception)
    try:
        while True:
            batch: list[T] = []
            # Without the check, a reader that took the end together with items would wait here for ever.
            item = None if drawing.done() and not ready else await ready.get()
            while item is not None:
                batch.append(item)
                if not ready:
                    break
                item = ready.get_nowait()
            if batch:
                yield batch
            if drawing.done() and not ready:
                break
    finally:
        drawing.cancel()
        await asyncio.wait({drawing})
    # Raised after the last item, so that a client gets the text that came before the error.
    drawing.result()
