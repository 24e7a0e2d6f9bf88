"""A queue between two tasks of one event loop: a single reader and a single writer.

Each token of each answer passes through several queues. `asyncio.Queue` serves any number of readers and writers and
counts unfinished items, so an item costs it about twenty Python calls; here it costs three.
"""

import asyncio
import math
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class SpscQueue(Generic[T]):
    """Items in order. One task at a time may wait in `get`, and one in `put`; any code of the loop may `put_nowait`."""

    __slots__ = ("_items", "_most", "_reader", "_writer")

    def __init__(self, most: float = math.inf) -> None:
        """`most` items wait in the queue at once."""
        self._items: deque[T] = deque()
        self._most = most
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._items)

    def first(self) -> T | None:
        """Return the first item without removing it; None if there is none."""
        return self._items[0] if self._items else None

    def put_nowait(self, item: T) -> bool:
        """Append an item if there is room. Return whether there was."""
        if len(self._items) >= self._most:
            return False
        self.append(item)
        return True

    def append(self, item: T) -> None:
        """Append an item whether there is room or not."""
        self._items.append(item)
        if (reader := self._reader) is not None:
            self._reader = None
            # A reader that was cancelled leaves its future behind.
            if not reader.done():
                reader.set_result(None)

    async def put(self, item: T) -> None:
        """Append an item once there is room. After a cancellation the item is not in the queue."""
        while not self.put_nowait(item):
            writer = self._writer = asyncio.Future()
            await writer

    def get_nowait(self) -> T:
        """Remove and return the first item. Raises IndexError if there is none."""
        item = self._items.popleft()
        self._make_room()
        return item

    async def get(self) -> T:
        """Remove and return the first item once there is one. After a cancellation no item is lost."""
        # Without a call of `get_nowait`, which would cost as much as the rest.
        while not self._items:
            reader = self._reader = asyncio.Future()
            await reader
        item = self._items.popleft()
        if self._writer is not None:
            self._make_room()
        return item

    async def get_all(self) -> list[T]:
        """Remove and return all items once there is one. After a cancellation no item is lost."""
        while not self._items:
            reader = self._reader = asyncio.Future()
            await reader
        return self.take_all()

    def take_all(self) -> list[T]:
        """Remove and return the items that there are."""
        items = list(self._items)
        self._items.clear()
        self._make_room()
        return items

    def _make_room(self) -> None:
        if (writer := self._writer) is not None:
            self._writer = None
            if not writer.done():
                writer.set_result(None)
