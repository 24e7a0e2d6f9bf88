"""Batches for llama.cpp, whose arrays numpy owns.

llama_batch points to one array for each attribute of a token. Filling numpy slices is much faster than setting ctypes
elements one by one.
"""

import ctypes
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np
from numpy.typing import NDArray


class Batch:
    """A batch of tokens, filled anew for every step."""

    def __init__(self, size: int, *, outputs_all: bool = False, state_width: int = 0) -> None:
        """Allocate room for `size` tokens. With `outputs_all`, each of them gets logits, whatever `add` is told.

        `state_width`: the length of the hidden state that goes with each token, as heads need it.
        """
        self._outputs_all = outputs_all
        self.states = np.zeros((size, state_width), np.float32)
        """The hidden states that go with the tokens, by row. They are written after the tokens were added."""
        self._tokens = np.zeros(size, np.int32)
        self._positions = np.zeros(size, np.int32)
        self._counts = np.ones(size, np.int32)
        self._slots = np.zeros(size, np.int32)
        # llama.cpp takes a list of sequence ids for each token. Every token has one sequence here, so each list is one
        # element of this array.
        self._lists = self._slots.ctypes.data + 4 * np.arange(size, dtype=np.uint64)
        self._outputs = np.zeros(size, np.int8)
        # llama_batch holds bare addresses, so every array is also an attribute, which lives as long as the batch.
        integers = ctypes.POINTER(ctypes.c_int32)
        self.native = lib.llama_batch()
        arrays: tuple[tuple[str, NDArray[Any], Any], ...] = (
            ("token", self._tokens, integers),
            ("pos", self._positions, integers),
            ("n_seq_id", self._counts, integers),
            ("seq_id", self._lists, ctypes.POINTER(integers)),
            ("logits", self._outputs, ctypes.POINTER(ctypes.c_int8)),
            ("embd", self.states, ctypes.POINTER(ctypes.c_float)),
        )
        for name, array, kind in arrays if state_width else arrays[:-1]:
            setattr(self.native, name, ctypes.cast(array.ctypes.data, kind))
        self.address = ctypes.addressof(self.native)
        self.length = 0

    def clear(self) -> None:
        """Remove all tokens."""
        self.length = 0

    def add(
        self,
        slot: int,
        position: int,
        tokens: list[int],
        *,
        output: bool,
        all_outputs: bool = False,
        outputs: range = range(0),
    ) -> int:
        """Add the next tokens of a sequence. Return the row of the last one, which gets logits if `output`.

        `all_outputs`: every token gets an output, as pooled embeddings and draft tokens need it. `outputs`: the tokens
        at these indexes get logits too, as the log-probabilities of a prompt need them.
        """
        output, all_outputs = output or self._outputs_all, all_outputs or self._outputs_all
        start, end = self.length, self.length + len(tokens)
        if end - start == 1:
            # The usual case. A slice costs numpy eight times as much as an element.
            self._tokens[start] = tokens[0]
            self._positions[start] = position
            self._slots[start] = slot
            self._outputs[start] = output or bool(outputs)
            self.length = self.native.n_tokens = end
            return start
        self._tokens[start:end] = tokens
        self._positions[start:end] = range(position, position + len(tokens))
        self._slots[start:end] = slot
        self._outputs[start:end] = all_outputs
        self._outputs[end - 1] = output
        if outputs:
            self._outputs[start + outputs.start : start + outputs.stop] = True
        self.length = self.native.n_tokens = end
        return end - 1


class VectorBatch:
    """A batch of embedding vectors of one sequence, in the place of tokens."""

    def __init__(
        self,
        slot: int,
        vectors: NDArray[np.float32],
        positions: NDArray[np.int32],
        *,
        output: bool,
        outputs_all: bool = False,
    ) -> None:
        """Take vectors and their positions, one row for each coordinate.

        The last vector gets logits if `output`, and all of them with `outputs_all`.
        """
        self.length = len(vectors)
        self._vectors = np.ascontiguousarray(vectors, np.float32)
        # llama.cpp reads the first coordinates of all vectors, then the second ones of all, and so on.
        self._positions = np.ascontiguousarray(positions, np.int32)
        self._counts = np.ones(self.length, np.int32)
        self._slot = np.array([slot], np.int32)
        self._lists = np.full(self.length, self._slot.ctypes.data, np.uint64)
        self._outputs = np.full(self.length, outputs_all, np.int8)
        self._outputs[-1] = output or outputs_all
        integers = ctypes.POINTER(ctypes.c_int32)
        self.native = lib.llama_batch()
        self.native.n_tokens = self.length
        for name, array, kind in (
            ("embd", self._vectors, ctypes.POINTER(ctypes.c_float)),
            ("pos", self._positions, integers),
            ("n_seq_id", self._counts, integers),
            ("seq_id", self._lists, ctypes.POINTER(integers)),
            ("logits", self._outputs, ctypes.POINTER(ctypes.c_int8)),
        ):
            setattr(self.native, name, ctypes.cast(array.ctypes.data, kind))
        self.address = ctypes.addressof(self.native)
