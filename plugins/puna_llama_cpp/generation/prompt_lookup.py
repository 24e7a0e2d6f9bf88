"""Prompt lookup: what followed the last few tokens when they occurred before is likely to follow again.

Texts that quote, edit or extract say long stretches of their prompt again. Evaluating the guess together with the last
token costs little more than that token alone, and every token of it that would have been drawn anyway is a step saved.
"""

from collections.abc import Sequence
from typing import Final

PATTERN: Final = 3
"""Tokens that must be equal for a place to count as the same."""
LONGEST: Final = 7
"""Tokens guessed at once at most."""
_FIRST = 2
_LONGEST_REST = 256


class Lookup:
    """Guesses for one sequence; guesses less the less comes true."""

    def __init__(self) -> None:
        """Start with short guesses."""
        self._after: dict[tuple[int, ...], int] = {}
        self._indexed = 0
        self._length = _FIRST
        self._misses = 0
        self._resting = 0

    def guess(self, tokens: Sequence[int], most: int) -> list[int]:
        """Return up to `most` tokens that may follow these; often none. `tokens` only ever grow, or see `reset`."""
        for end in range(max(self._indexed, PATTERN), len(tokens)):
            self._after[tuple(tokens[end - PATTERN : end])] = end
        self._indexed = len(tokens)
        if self._resting:
            self._resting -= 1
            return []
        start = self._after.get(tuple(tokens[-PATTERN:]))
        if start is None:
            return []
        guessed: list[int] = []
        for at in range(start, start + min(most, self._length)):
            token = tokens[at] if at < len(tokens) else guessed[at - len(tokens)]
            if token < 0:  # a picture
                break
            guessed.append(token)
        return guessed

    def learn(self, guessed: int, right: int) -> None:
        """Take note that of so many tokens guessed so many were right."""
        if right == guessed:
            self._length, self._misses = min(2 * self._length, LONGEST), 0
            return
        self._length = max(right, 1)
        if 2 * right < guessed:
            self._misses += 1
            self._resting = min(1 << (self._misses + 1), _LONGEST_REST)

    def reset(self) -> None:
        """Start over, since the tokens have moved."""
        self._after.clear()
        self._indexed = 0
