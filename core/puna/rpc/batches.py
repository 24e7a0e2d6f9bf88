"""Batching of stream items: items that are ready at the same time travel in one message.

Theory. A message costs far more than an item in it. While a message is being written, further items become ready and
make the next one, so a slow reader gets few messages. A fast reader would get one for each item. A pause after a
message bounds the number of messages a second: items that come meanwhile travel together. It costs no request any time,
since the end of the source ends the pause, and a source that is nearly as slow as the pause has none.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final, TypeVar, cast

from puna.blocking import retrieve_exception
from puna.spsc_queue import SpscQueue

T = TypeVar("T")

NEARLY: Final = 0.75
"""The share of a pause after which an item waits no longer. A timer for the rest would cost as much as a message."""
AHEAD: Final = 256
"""Items that are read ahead of a slow reader. Beyond them the source waits."""


async def batches(
    make: Callable[[Callable[[T], None]], AsyncGenerator[T]], pause: Callable[[T], float] | None = None
) -> AsyncGenerator[list[T]]:
    """Yield the items of a source in order, in lists of all items that are ready.

    `make` returns the source. Its argument is a function that inserts an item; the item is dropped if the reader is far
    behind. `pause` is called with the last item of a list and returns the least number of seconds between this list and
    the next one; None: no list is waited for to fill. An exception of the source is raised after the items before it.
    Closing this generator closes the source and waits for it.
    """
    ready: SpscQueue[T | None] = SpscQueue(AHEAD)
    loop = asyncio.get_running_loop()
    drawing: asyncio.Task[None] | None = None
    pausing: asyncio.Future[None] | None = None
    due = early = -math.inf
    """When the pause ends by the loop's clock, and when it nearly ends."""

    def resume() -> None:
        if pausing is not None and not pausing.done():
            pausing.set_result(None)

    def tell(item: T) -> None:
        if drawing is None or not drawing.done():
            ready.put_nowait(item)

    source = make(tell)

    async def draw() -> None:
        try:
            async with aclosing(source):
                async for item in source:
                    # Waits while the reader is far behind. So a client that does not read slows its own model down, and
                    # no other one.
                    if not ready.put_nowait(item):
                        await ready.put(item)
        finally:
            ready.append(None)
            resume()

    drawing = asyncio.create_task(draw())
    drawing.add_done_callback(retrieve_exception)
    try:
        ended = False
        while not ended:
            items = await ready.get_all()
            # The wait begins with an item and not with the last list: a timer for each list of a slow source would wake
            # the loop for nothing.
            if items[-1] is not None and loop.time() < early and not drawing.done():
                pausing = loop.create_future()
                timer = loop.call_at(due, resume)
                try:
                    await pausing
                finally:
                    timer.cancel()
                items += ready.take_all()
            if ended := items[-1] is None:
                items.pop()
            if batch := cast("list[T]", items):
                if pause is not None:
                    began, seconds = loop.time(), pause(batch[-1])
                    due, early = began + seconds, began + seconds * NEARLY
                yield batch
    finally:
        drawing.cancel()
        await asyncio.wait({drawing})
    # Raised after the last item, so that a client gets the text that came before the error.
    drawing.result()
