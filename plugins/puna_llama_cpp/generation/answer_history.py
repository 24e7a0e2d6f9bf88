"""The answers that a model gave lately, as a source of draft tokens for its next ones.

Agents and pipelines ask for nearly the same text again and again: the same tool calls, the same file, the same form.
Answers are kept for each cache salt by itself. A draft changes nothing but the speed of an answer, but speed can be
measured, and so a request must not be drafted from an answer that its sender may not see.

The answers of a salt form a row of segments. The number of tokens of all segments is bounded, and the oldest segment
of all salts is dropped first.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from puna_llama_cpp.generation.ngram_index import NGRAM, NgramIndex

_SEGMENTS: Final = 8
"""Number of segments that fill the history. More of them are searched for longer, of fewer more is dropped at once."""
_SEGMENT_COST: Final = 64
"""Tokens that take as much memory as an empty segment."""
_END: Final = -1
"""Stands behind each answer. No token has this id."""


class AnswerHistory:
    """Keeps the newest answers, up to a number of tokens."""

    def __init__(self, limit: int) -> None:
        """Keep at most `limit` tokens; 0: none. A token takes about 250 bytes."""
        self._limit = limit
        self._segments: dict[str, deque[NgramIndex]] = {}
        """The segments of each salt, the newest first."""
        self._oldest_first: deque[str] = deque()
        """The salt of each segment."""
        self.size = 0
        """The number of tokens, and as much for each segment as it takes."""

    def add(self, salt: str, tokens: Sequence[int]) -> None:
        """Keep an answer with the tokens in front of it, or the end of a very long one."""
        most = self._limit // _SEGMENTS - _SEGMENT_COST
        tokens = tokens[-most:] if most > 0 else ()
        if len(tokens) <= NGRAM:
            return
        segments = self._segments.setdefault(salt, deque())
        if not segments or len(segments[0].tokens) + len(tokens) > most:
            segments.appendleft(NgramIndex([]))
            self._oldest_first.append(salt)
            self.size += _SEGMENT_COST
        segments[0].tokens += [*tokens, _END]
        segments[0].update()
        self.size += len(tokens) + 1
        while self.size > self._limit:
            self._drop_oldest()

    def segments(self, salt: str) -> Iterable[NgramIndex]:
        """Return the segments of a salt, the newest first."""
        return self._segments.get(salt, ())

    def _drop_oldest(self) -> None:
        salt = self._oldest_first.popleft()
        # The segments of one salt are dropped in the order in which they were begun.
        dropped = self._segments[salt].pop()
        self.size -= len(dropped.tokens) + _SEGMENT_COST
        if not self._segments[salt]:
            del self._segments[salt]
