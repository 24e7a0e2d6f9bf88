"""An index of a growing list of tokens: where did the last few tokens occur before?

It is a suffix structure in the form in which compressors keep it. For each n-gram it knows the latest occurrence, and
for each occurrence the one before. A caller compares the tokens in front of the occurrences and keeps those with the
longest common suffix. Each token costs one entry of a dictionary, and a search costs a few comparisons of slices.
"""

from typing import Final

NGRAM: Final = 3
"""Tokens that must be equal for an earlier place to count as the same."""


class NgramIndex:
    """Finds the places at which the same n-gram occurred before. Tokens may only be appended."""

    def __init__(self, tokens: list[int]) -> None:
        """Follow a list of tokens, which `update` looks at."""
        self.tokens = tokens
        self.latest: dict[tuple[int, ...], int] = {}
        """For each n-gram, the index of the token that followed its latest occurrence."""
        self.followed: tuple[list[int], int, int] | None = None
        """The tokens that this list followed last, the index of the next one there, and this list's length then."""
        self._earlier: list[int] = [-1] * NGRAM
        """For each token, the index of the one that followed the occurrence before; -1: there is none."""

    def update(self) -> None:
        """Index the tokens that were appended since the last call."""
        tokens, earlier, latest = self.tokens, self._earlier, self.latest
        start, end = len(earlier), len(tokens)
        if end <= start:
            return
        if end - start == 1:  # the usual case, where making slices takes most of the time
            ngram = tuple(tokens[start - NGRAM : start])
            earlier.append(latest.get(ngram, -1))
            latest[ngram] = start
            return
        # The n-gram at the very end is left out: nothing follows it yet.
        ngrams = zip(*(tokens[start - n : end - n] for n in range(NGRAM, 0, -1)), strict=True)
        for index, each in enumerate(ngrams, start):
            earlier.append(latest.get(each, -1))
            latest[each] = index

    def followers(self, ngram: tuple[int, ...], limit: int) -> list[int]:
        """Return the indexes of up to `limit` tokens that followed an n-gram, the latest first."""
        found: list[int] = []
        index = self.latest.get(ngram, -1)
        while index >= 0 and len(found) < limit:
            found.append(index)
            index = self._earlier[index]
        return found
