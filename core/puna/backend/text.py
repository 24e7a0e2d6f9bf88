"""The text of a sequence, assembled from the bytes of its tokens and released in parts that a client may see.

A token's bytes need not be whole UTF-8, and a stop string may begin in one token and end in a later one. So a part of
the text waits here until the following tokens decide what becomes of it. Each call of `feed` applies these rules in
order to the bytes that wait:

1. While the bytes end inside a UTF-8 character, all of them wait.
2. When the bytes contain a stop string, the text before the earliest one is released, and the sequence is over.
3. While the bytes end like the beginning of a stop string, all of them wait.
4. Otherwise all of them are released.

Ollama's server follows the same rules, and clients can see where its deltas are cut. Bytes wait and are released as a
whole for that reason, and for the same reason rule 1 counts the bytes that follow a character's first byte without
looking at their values.
"""

from collections.abc import Iterable


class TextAssembly:
    """The text of one sequence, fed with one token after the other.

    Text that still waits when the token limit ends a sequence is lost, as in Ollama: call `finish` only when the model
    itself ended the sequence.
    """

    __slots__ = ("_encoded_stops", "_stops", "_waiting", "stop_sequence", "stopped")

    def __init__(self, stops: Iterable[str] = ()) -> None:
        """Watch for stop strings. An empty stop string ends the sequence with its first whole character."""
        self._stops = tuple(stops)
        self._encoded_stops = tuple(stop.encode() for stop in self._stops)
        self._waiting = b""
        self.stopped = False
        """True once a stop string has ended the text. `feed` must not be called afterwards."""
        self.stop_sequence = ""
        """The stop string that ended the text, which is never released itself."""

    def feed(self, raw: bytes) -> str:
        """Add a token's bytes. Return the text to release now, which is empty while the bytes wait for more."""
        # Most tokens end here: nothing waits, and nothing can wait for more.
        if raw.isascii() and not self._waiting and not self._stops:
            return raw.decode("ascii")
        # Copying is quadratic in the bytes that wait, which are few unless a stop string is long.
        self._waiting += raw
        if complete_length(self._waiting) < len(self._waiting):
            return ""
        if not self._stops:
            return self._release(len(self._waiting))
        earliest = -1
        for stop, encoded in zip(self._stops, self._encoded_stops, strict=True):
            place = self._waiting.find(encoded)
            # Of several stop strings at one place, the one that was given first counts.
            if place >= 0 and (earliest < 0 or place < earliest):
                earliest, self.stop_sequence, self.stopped = place, stop, True
        if self.stopped:
            return self._release(earliest)
        if held_length(self._waiting, self._encoded_stops):
            return ""
        return self._release(len(self._waiting))

    def finish(self) -> str:
        """Return the text that waits, when the model has ended the sequence.

        If the waiting bytes end inside a character, all of them are lost.
        """
        if complete_length(self._waiting) < len(self._waiting):
            self._waiting = b""
        return self._release(len(self._waiting))

    def _release(self, length: int) -> str:
        """Return that many of the waiting bytes as text, and drop the rest."""
        # Bytes are left over only where a stop string has ended the text.
        released, self._waiting = self._waiting[:length], b""
        return released.decode("utf-8", "replace")


def complete_length(data: bytes) -> int:
    """Return how many bytes are left when an unfinished UTF-8 character at the end is cut off.

    A first byte of a character within the last three bytes counts as unfinished until as many bytes follow as it
    announces. The values of those bytes do not matter.
    """
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        # A first byte announces the length of its character in its leading ones; any other byte needs nothing after it.
        need = 2 if byte & 0xE0 == 0xC0 else 3 if byte & 0xF0 == 0xE0 else 4 if byte & 0xF8 == 0xF0 else 1
        if need > back:
            return len(data) - back
    return len(data)


def held_length(data: bytes, stops: Iterable[bytes]) -> int:
    """Return the length of the longest proper prefix of a stop string with which the data ends."""
    longest = 0
    for stop in stops:
        # Longest first, and never shorter than what an earlier stop string has found. The whole string is no proper
        # prefix.
        for length in range(min(len(stop) - 1, len(data)), longest, -1):
            if data.endswith(stop[:length]):
                longest = length
                break
    return longest
