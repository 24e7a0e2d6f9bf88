"""Items that are ready together, together."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import Final, TypeVar

from puna.blocking import retrieve_exception

T = TypeVar("T")

AHEAD: Final = 256
"""How many items are drawn ahead of a slow reader, before the source waits too."""


async def batches(make: Callable[[Callable[[T], None]], AsyncGenerator[T]]) -> AsyncGenerator[list[T]]:
    """Yield what `make(tell)` yields, in order, in lists of all that is there; never wait to fill one.

    Calling `tell` puts an item between, unless the reader is far behind. What the source raises is raised after the
    items before it. Closing this generator closes the source and waits for it.
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
                    await ready.put(item)
        finally:
            with suppress(asyncio.QueueFull):  # a reader with items left to take sees the task's end after them
                ready.put_nowait(None)

    drawing = asyncio.create_task(draw())
    drawing.add_done_callback(retrieve_exception)
    try:
        while True:
            batch: list[T] = []
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
    drawing.result()
