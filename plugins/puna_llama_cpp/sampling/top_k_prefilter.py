"""Selects candidate tokens before the sampler chain, which would otherwise spend most of its time on hopeless ones.

With top-k, only the k tokens with the largest logits can be sampled. A lower bound for them is found quickly: divide
the vocabulary into groups, and take the k-th largest of the groups' maxima. At least k tokens reach that bound, so
every token below it has k others above it. Comparing with the bound is one vectorized pass; sorting is not needed.

All threads wait while a token is sampled, and the weights have driven Python's code and numpy's out of the caches. So
the kernels select where they are installed, and numpy elsewhere. Both find the same tokens.
"""

import ctypes
from typing import Any, Final

import llama_cpp.llama_cpp as lib
import numpy as np
from numpy.typing import NDArray

from puna_ggml_kernels.loader import installed
from puna_llama_cpp.binding.native_step import Draw

MAX_CANDIDATES: Final = 4096
"""A chain over this many tokens is fast, so smaller vocabularies are not filtered, and larger selections are not used.
"""
_GROUP = 64
_GROUPS_PER_TOKEN = 4
"""Groups for each token that is asked for. More groups make the bound higher and the selection smaller."""
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # the layout of llama_token_data


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


class Candidates:
    """The candidates of one token after the other, in llama.cpp's own form."""

    def __init__(self, vocabulary_size: int, count: int) -> None:
        """Select from so many logits those that include the `count` largest."""
        self._vocabulary_size, self._count = vocabulary_size, count
        self._data = np.empty(MAX_CANDIDATES, _CANDIDATE)
        self._address = self._data.ctypes.data
        self._first: Any = ctypes.cast(self._address, lib.llama_token_data_p)
        self._array = lib.llama_token_data_array()
        self.reference = ctypes.pointer(self._array)
        """The pointer to the candidates that llama.cpp's samplers take."""
        kernels = installed()
        self._select = kernels.puna_top_candidates if kernels is not None else None

    def describe(self, draw: Draw) -> None:
        """Have a draw select in the same way."""
        draw.candidates, draw.room = self._address, len(self._data)
        draw.vocabulary, draw.count, draw.group = self._vocabulary_size, self._count, _GROUP

    def select(self, logits: int) -> bool:
        """Select from the logits at an address. False: too many tokens reach the bound."""
        if self._select is not None:
            room = len(self._data)
            found = self._select(logits, self._vocabulary_size, self._count, _GROUP, self._address, room)
        else:
            found = self._select_with_numpy(logits)
        if not found:
            return False
        # A sampler may have sorted, cut or replaced what was here.
        array = self._array
        array.data, array.size, array.selected, array.sorted = self._first, found, -1, False
        return True

    @property
    def selected(self) -> int:
        """The token that the samplers have drawn."""
        return int(self._array.data[self._array.selected].id)

    def _select_with_numpy(self, address: int) -> int:
        row = (ctypes.c_float * self._vocabulary_size).from_address(address)
        logits: NDArray[np.float32] = np.ctypeslib.as_array(row)
        tokens = top_candidates(logits, self._count)
        if tokens is None:
            return 0
        data = self._data[: len(tokens)]
        data["id"], data["logit"], data["p"] = tokens, logits[tokens], 0
        return len(tokens)
