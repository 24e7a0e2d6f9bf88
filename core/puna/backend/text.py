"""Assembles the bytes of tokens into text that may be sent.

A token's bytes need not be complete UTF-8, and a stop string may span tokens. TextAssembly therefore holds back an
incomplete character, and a suffix that may be the beginning of a stop string, until a later token decides. So no delta
contains half a character or a part of a stop string.
"""

import codecs
from collections.abc import Iterable


class TextAssembly:
    """The text of one sequence, token by token."""

    __slots__ = ("_decoder", "_stops", "_unsent", "stop_sequence")

    def __init__(self, stops: Iterable[str] = ()) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._unsent = ""
        self.stop_sequence = ""
        """The stop string that ended the text; empty while none has. `feed` must not be called after that."""

    def feed(self, raw: bytes) -> str:
        """Add the bytes of a token and return the text that may be sent now; "" if all of it is held back."""
        self._unsent += self._decoder.decode(raw)
        if self._cut() or not (self._decoder.getstate()[0] or self._held()):
            return self._take()
        return ""

    def finish(self) -> str:
        """Return the held text after the model ended the sequence. An incomplete character is dropped."""
        return self._take()

    def _cut(self) -> bool:
        """Cut the text at the earliest stop string; of several at one position the first in `stops` counts."""
        place = len(self._unsent)
        for stop in self._stops:
            found = self._unsent.find(stop)
            if 0 <= found < place:
                place, self.stop_sequence = found, stop
        self._unsent = self._unsent[:place]
        return bool(self.stop_sequence)

    def _held(self) -> bool:
        """Return whether the text ends with the beginning of a stop string."""
        text = self._unsent
        return any(
            text.endswith(stop[:length]) for stop in self._stops for length in range(1, min(len(stop), len(text) + 1))
        )

    def _take(self) -> str:
        text, self._unsent = self._unsent, ""
        return text
