"""The tokens of a prompt whose log-probabilities a request asks for.

The row of logits behind the token at index i gives the probability of the token at index i + 1. So the first scored
token needs the row of the token before it, which must be evaluated and not taken from the cache. Each row is as wide as
the vocabulary, and a batch has room for a few of them, so the scored part of a prompt is evaluated in small batches.
"""

from collections.abc import Sequence
from typing import Final

_NONE: Final = range(0)


class PromptScores:
    """The scored tokens of one prompt, and how many of them have their log-probability."""

    def __init__(self, prompt: Sequence[int], start: int | None) -> None:
        """`start`: index of the first scored token, at least 1; None: no token is scored."""
        self._targets = [] if start is None else list(prompt[start:])
        self._first_row = 0 if start is None else start - 1
        self.done = 0
        """Number of scored tokens that have their log-probability."""

    @property
    def reusable(self) -> int | None:
        """How many leading tokens of the prompt may be taken from the cache; None: all."""
        return self._first_row if self._targets else None

    def rows(self, start: int, count: int) -> range:
        """Return which of `count` tokens from index `start` on need a row of logits, as offsets from `start`.

        A part of a prompt that is evaluated once more needs no rows for tokens that have their log-probability.
        """
        # Every step of every sequence asks, and most sequences score nothing.
        if not self._targets:
            return _NONE
        first = max(self._first_row + self.done - start, 0)
        return range(first, max(min(self._first_row + len(self._targets) - start, count), first))

    def limit(self, start: int, count: int, rows: int) -> int:
        """Return how many of `count` tokens from index `start` on need at most that many rows."""
        needed = self.rows(start, count)
        return count if len(needed) <= rows else needed.start + rows

    def target(self, index: int) -> int:
        """Return the token whose probability the row of the token at this index gives."""
        return self._targets[index - self._first_row]
