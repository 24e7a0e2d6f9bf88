"""The last items of an endless sequence, such as log lines, for readers that follow at their own speed.

Items have numbers. A reader keeps the number of the item that it read last and asks for what came after it, so a slow
reader costs no memory: it finds a gap where items were dropped.
"""

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Tail(Generic[T]):
    """Keeps the last items within bounds. Any thread may add items and read them."""

    def __init__(self, most: int, most_bytes: int) -> None:
        """`most` items are kept, and in `most_bytes`."""
        self._most = most
        self._most_bytes = most_bytes
        self._items: deque[tuple[int, T, int]] = deque()
        self._bytes = 0
        self._last = 0
        self._lock = threading.Lock()

    @property
    def before(self) -> int:
        """The number before that of the oldest item: where a reader of everything begins."""
        with self._lock:
            return self._items[0][0] - 1 if self._items else self._last

    def append(self, item: T, size: int = 0) -> None:
        """Add an item of some bytes. The oldest items are dropped if it does not fit."""
        with self._lock:
            self._last += 1
            self._items.append((self._last, item, size))
            self._bytes += size
            while len(self._items) > self._most or self._bytes > self._most_bytes:
                self._bytes -= self._items.popleft()[2]

    def after(self, number: int) -> tuple[list[tuple[int, T]], int]:
        """Return the items after a number, each with its own, and how many others came after it and were dropped."""
        with self._lock:
            found: list[tuple[int, T]] = []
            # From the end: a reader that keeps up asks for few of many.
            for each in reversed(self._items):
                if each[0] <= number:
                    break
                found.append(each[:2])
            return found[::-1], max(self._last - number - len(found), 0)
