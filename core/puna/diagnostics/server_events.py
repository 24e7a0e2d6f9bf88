"""The last events of the server: models that were loaded or removed, hosts that died, and nodes that were lost."""

import time
from typing import Final, TypeAlias

from puna import events
from puna.diagnostics.tail import Tail

ServerEvent: TypeAlias = (
    events.ModelLoaded | events.ModelLoadFailed | events.ModelRemoved | events.HostDied | events.NodeLost
)
OVERHEAD: Final = 512
"""Bytes that an event is charged beside the text of an error."""


class ServerEvents:
    """Keeps the last events from its creation until `close`."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self.items: Tail[tuple[int, ServerEvent]] = Tail(most, most_bytes)
        """Each with its time in nanoseconds since 1970."""
        self._stops = [
            events.subscribe(events.ModelLoaded, self._keep),
            events.subscribe(events.ModelLoadFailed, self._keep),
            events.subscribe(events.ModelRemoved, self._keep),
            events.subscribe(events.HostDied, self._keep),
            events.subscribe(events.NodeLost, self._keep),
        ]

    def close(self) -> None:
        """Keep no more events."""
        for stop in self._stops:
            stop()

    def _keep(self, event: ServerEvent) -> None:
        size = len(event.error) if isinstance(event, events.ModelLoadFailed | events.NodeLost) else 0
        self.items.append((time.time_ns(), event), size + OVERHEAD)
