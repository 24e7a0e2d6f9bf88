"""From tokens' bytes to the text that is sent: whole UTF-8 only, and never a part of a stop string."""

from collections.abc import Sequence


def complete_length(data: bytes) -> int:
    """Return how many of the bytes are left when an unfinished UTF-8 character at the end is cut off.

    A character's first byte among the last three waits until as many bytes follow as it announces, whatever they are:
    the reference does not look whether they continue it, and where it cuts its pieces is visible.
    """
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        need = 2 if byte & 0xE0 == 0xC0 else 3 if byte & 0xF0 == 0xE0 else 4 if byte & 0xF8 == 0xF0 else 1
        if need > back:
            return len(data) - back
    return len(data)


def held_length(data: bytes, stops: Sequence[bytes]) -> int:
    """Return the length of the longest proper prefix of a stop string with which the data ends."""
    longest = 0
    for stop in stops:
        for length in range(min(len(stop) - 1, len(data)), longest, -1):
            if data.endswith(stop[:length]):
                longest = length
                break
    return longest


class TextOutput:
    """The text of one sequence as it grows.

    What is unsent waits as a whole while it ends inside a character or like the beginning of a stop string. Text that
    still waits when the token limit ends the sequence is lost, as in the reference.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """Look out for these stop strings."""
        self._stops = [(stop.encode(), stop) for stop in stops]
        self._encoded = [data for data, _ in self._stops]
        self._unsent = b""

    def push(self, piece: bytes, *, last: bool) -> tuple[str, str | None]:
        """Add a token's bytes; return the text to send now and the stop string that was completed, if any.

        `last`: the token ends the sequence, so that nothing needs to wait for what might follow.
        """
        self._unsent += piece
        if complete_length(self._unsent) < len(self._unsent):
            return "", None
        found = [(at, stop) for data, stop in self._stops if (at := self._unsent.find(data)) >= 0]
        if found:
            at, stop = min(found, key=lambda pair: pair[0])
            return self._take(at), stop
        if not last and held_length(self._unsent, self._encoded):
            return "", None
        return self._take(len(self._unsent)), None

    def _take(self, length: int) -> str:
        taken, self._unsent = self._unsent[:length], b""
        return taken.decode("utf-8", "replace")
