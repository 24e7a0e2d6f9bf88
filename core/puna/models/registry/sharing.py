"""Transfers that several requests share: one for each key, for as long as a request waits for it."""

import contextlib
from collections.abc import AsyncGenerator, Callable, Hashable
from typing import Generic, TypeVar

from puna.models.registry.transfer import Transfer

Key = TypeVar("Key", bound=Hashable)
T = TypeVar("T", bound=Transfer)


class Shared(Generic[Key, T]):
    """The running transfers of one kind."""

    def __init__(self) -> None:
        self._running: dict[Key, tuple[T, set[object]]] = {}

    @contextlib.asynccontextmanager
    async def joined(self, key: Key, make: Callable[[], T]) -> AsyncGenerator[T]:
        """Join the transfer of a key. It is started if none is running, or the running one has failed.

        The last request that leaves cancels the transfer and waits until it has ended.
        """
        transfer, listeners = self._running.get(key, (None, set[object]()))
        # A failed transfer may still have requests that have not read its error. They keep it, and new ones start
        # another.
        if transfer is None or transfer.has_failed:
            transfer, listeners = make(), set()
            self._running[key] = transfer, listeners
            transfer.start()
        me = object()
        listeners.add(me)
        try:
            yield transfer
        finally:
            listeners.discard(me)
            if not listeners:
                # The key may belong to a newer transfer by now.
                if self._running.get(key, (None,))[0] is transfer:
                    del self._running[key]
                await transfer.stop()

    def __len__(self) -> int:
        return len(self._running)
