"""The events of a host's sequences, from the Run stream to the tasks that wait for them."""

from collections.abc import Callable

from google.protobuf.message import DecodeError

from puna.backend.v1 import backend_pb2 as wire
from puna.limits import Limits
from puna.spsc_queue import SpscQueue


class Incoming:
    """The events of one sequence that have arrived."""

    __slots__ = ("bytes", "ended", "events", "excessive")

    def __init__(self, max_unread: int) -> None:
        self.events: SpscQueue[wire.SequenceEvent | None] = SpscQueue(max_unread)
        """The events that are not taken yet; None: the host is gone, or too many events wait."""
        self.bytes = 0
        """Size of all events so far."""
        self.excessive = False
        """Whether that is too much. Later events are dropped."""
        self.ended = False
        """Whether the last event has been taken."""


class IncomingEvents:
    """Passes the events of a host to its sequences, by their ids."""

    def __init__(self, limits: Limits, violated: Callable[[str], None], cancel: Callable[[int], None]) -> None:
        """`violated` is called with a reason if the host breaks the protocol, `cancel` with an id to cancel."""
        self._max_bytes, self._max_unread = limits.max_sequence_bytes, limits.max_unread_deltas
        self._violated, self._cancel = violated, cancel
        self._last_id = 0
        self._sequences: dict[int, Incoming] = {}
        self.messages = 0
        """Number of messages so far."""

    def __len__(self) -> int:
        return len(self._sequences)

    def open(self) -> tuple[int, Incoming]:
        """Return a new sequence and its id."""
        # Ids are never reused, since events of a cancelled sequence may still arrive.
        self._last_id += 1
        incoming = self._sequences[self._last_id] = Incoming(self._max_unread)
        return self._last_id, incoming

    def close(self, sequence_id: int) -> None:
        """Drop all further events of a sequence."""
        # A sequence of which too many events wait is dropped before.
        self._sequences.pop(sequence_id, None)

    def end(self) -> None:
        """Wake every sequence, since the host is gone."""
        for incoming in self._sequences.values():
            incoming.events.append(None)

    @property
    def due(self) -> bool:
        """Whether a sequence waits for the host. One whose events wait for a slow client does not."""
        return any(not (each.ended or len(each.events)) for each in self._sequences.values())

    def take(self, message: bytes) -> None:
        """Pass the events of a message on."""
        self.messages += 1
        try:
            events = wire.RunResponse.FromString(message).events
        except DecodeError:
            self._violated("it sent a message that cannot be read")
            return
        # The events share the size of their message, which costs less than measuring each.
        share = len(message) // max(len(events), 1)
        for event in events:
            incoming = self._sequences.get(event.sequence_id)
            if incoming is not None:
                incoming.bytes += share
                if incoming.bytes > self._max_bytes:
                    self._end_excessive(event.sequence_id, incoming)
                # Waiting here would hold up all other sequences of the stream. So a sequence whose client reads too
                # slowly goes on until too many events wait, and is then cancelled.
                elif incoming.events.put_nowait(event):
                    continue
                elif event.HasField("prefill"):
                    continue  # a report without text, which no client misses
                else:
                    self.close(event.sequence_id)
                    self._cancel(event.sequence_id)
                    incoming.events.append(None)
            # An event of a cancelled sequence may have crossed the cancel. The host cannot know an id before the core.
            elif not 0 < event.sequence_id <= self._last_id:
                self._violated("it sent an event of a sequence that does not exist")
                return

    def _end_excessive(self, sequence_id: int, incoming: Incoming) -> None:
        """Fail a sequence that sends without end, and cancel it in the host."""
        if not incoming.excessive:
            incoming.excessive = True
            text = f"the backend sent more than {self._max_bytes} bytes (PUNA_MAX_SEQUENCE_BYTES)"
            incoming.events.append(wire.SequenceEvent(failure=wire.Failure(message=text)))
            self._cancel(sequence_id)
