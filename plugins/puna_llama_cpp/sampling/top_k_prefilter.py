"""Selects candidate tokens before the sampler chain, which would otherwise spend most of its time on hopeless ones.

With top-k, only the k tokens with the largest logits can be sampled. A lower bound for them is found quickly: divide
the vocabulary into groups, and take the k-th largest of the groups' maxima. At least k tokens reach that bound, so
every token below it has k others above it. Comparing with the bound is one vectorized pass; sorting is not needed.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

MAX_CANDIDATES: Final = 4096
"""A chain over this many tokens is fast, so smaller vocabularies are not filtered, and larger selections are not used.
"""
_GROUP = 64
_GROUPS_PER_TOKEN = 4
"""Groups for each token that is asked for. More groups make the bound higher and the selection smaller."""


def worthwhile(vocabulary_size: int, count: int) -> bool:
    """Return whether `top_candidates` finds the `count` largest of so many logits."""
    return vocabulary_size > MAX_CANDIDATES and vocabulary_size // _GROUP >= _GROUPS_PER_TOKEN * count


def top_candidates(logits: NDArray[np.float32], count: int) -> NDArray[np.intp] | None:
    """Return token ids in ascending order that include the `count` largest logits and all equal to them.

    None: the vocabulary is small, or too many tokens reach the bound.
    """
    groups = len(logits) // _GROUP
    if not worthwhile(len(logits), count):
        return None
    # Groups are strided, so that the maximum runs over whole rows, which numpy vectorizes.
    peaks = logits[: groups * _GROUP].reshape(_GROUP, groups).max(axis=0)
    bound = np.partition(peaks, groups - count)[groups - count]
    found = np.flatnonzero(logits >= bound)
    # At least `count` tokens reach the bound unless a logit is NaN. The chain then gets the whole vocabulary.
    return found if count <= len(found) <= MAX_CANDIDATES else None
