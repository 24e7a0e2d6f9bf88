"""Leaving out, before the samplers, what cannot be drawn: looking at a whole vocabulary takes most of their time.

With top-k only the likeliest few count. They are all above a bound that is quickly found: of the largest values of as
many groups, the k-th largest. Whatever is below it has k others above.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

MAX_CANDIDATES: Final = 4096
"""Tokens of a vocabulary with which samplers are quick anyhow."""
_GROUP = 64
_GROUPS_PER_TOKEN = 4
"""Groups for each token wanted, so that the bound is not too low."""


def top_candidates(logits: NDArray[np.float32], count: int) -> NDArray[np.intp] | None:
    """Return tokens in ascending order, among them the `count` likeliest and all equal to those; None: too many are."""
    groups = len(logits) // _GROUP
    if len(logits) <= MAX_CANDIDATES or groups < _GROUPS_PER_TOKEN * count:
        return None
    peaks = logits[: groups * _GROUP].reshape(_GROUP, groups).max(axis=0)
    bound = np.partition(peaks, groups - count)[groups - count]
    found = np.flatnonzero(logits >= bound)
    return found if count <= len(found) <= MAX_CANDIDATES else None
