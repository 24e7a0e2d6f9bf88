"""Putting tokens' bytes together to text that may be sent: never half a character, never a part of a stop string.

A token's bytes need not be whole UTF-8, and a stop string may span tokens. What may yet be the beginning of either is
held back until the next token decides.
"""

import codecs
from collections.abc import Iterable


class TextAssembly:
    """The text of one sequence, as it grows token by token."""

    __slots__ = ("_decoder", "_stops", "_unsent", "stop_sequence")

    def __init__(self, stops: Iterable[str] = ()) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._unsent = ""
        self.stop_sequence = ""
        """The stop string that ended the text; empty while none has. Nothing may be fed after it."""

    def feed(self, raw: bytes) -> str:
        """Add a token's bytes and return what may be sent now; "" while it waits for more."""
        self._unsent += self._decoder.decode(raw)
        if self._cut() or not (self._decoder.getstate()[0] or self._held()):
            return self._take()
        return ""

    def finish(self) -> str:
        """Return what was held back, when the model itself ended. Half a character is dropped."""
        return self._take()

    def _cut(self) -> bool:
        """Drop the earliest stop string and all after it; of several at one place the first given counts."""
        place = len(self._unsent)
        for stop in self._stops:
            found = self._unsent.find(stop)
            if 0 <= found < place:
                place, self.stop_sequence = found, stop
        self._unsent = self._unsent[:place]
        return bool(self.stop_sequence)

    def _held(self) -> bool:
        """Tell whether the text ends with the beginning of a stop string."""
        text = self._unsent
        return any(
            text.endswith(stop[:length]) for stop in self._stops for length in range(1, min(len(stop), len(text) + 1))
        )

    def _take(self) -> str:
        text, self._unsent = self._unsent, ""
        return text
