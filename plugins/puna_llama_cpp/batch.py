"""A batch for llama.cpp, in arrays that are filled anew for every step."""

import ctypes

import llama_cpp.llama_cpp as lib
import numpy as np


class Batch:
    """Tokens to evaluate together, each of one sequence."""

    def __init__(self, size: int) -> None:
        """Make room for `size` tokens."""
        self._tokens = np.zeros(size, np.int32)
        self._positions = np.zeros(size, np.int32)
        self._counts = np.ones(size, np.int32)
        self._slots = np.zeros(size, np.int32)
        # llama.cpp wants a pointer to a list of sequences for each token: they all point into one array
        self._lists = self._slots.ctypes.data + 4 * np.arange(size, dtype=np.uint64)
        self._outputs = np.zeros(size, np.int8)
        integers = ctypes.POINTER(ctypes.c_int32)
        self.native = lib.llama_batch()
        for name, array, kind in (
            ("token", self._tokens, integers),
            ("pos", self._positions, integers),
            ("n_seq_id", self._counts, integers),
            ("seq_id", self._lists, ctypes.POINTER(integers)),
            ("logits", self._outputs, ctypes.POINTER(ctypes.c_int8)),
        ):
            setattr(self.native, name, ctypes.cast(array.ctypes.data, kind))
        self.length = 0

    def clear(self) -> None:
        """Empty it."""
        self.length = 0

    def add(self, slot: int, position: int, tokens: list[int], *, output: bool, every: bool = False) -> int:
        """Add a sequence's next tokens and return the row of the last, which gets logits if `output`.

        `every` gives an output to all of them, as pooled embeddings want it.
        """
        start, end = self.length, self.length + len(tokens)
        self._tokens[start:end] = tokens
        self._positions[start:end] = range(position, position + len(tokens))
        self._slots[start:end] = slot
        self._outputs[start:end] = every
        self._outputs[end - 1] = output
        self.length = self.native.n_tokens = end
        return end - 1
