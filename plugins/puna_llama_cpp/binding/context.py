"""A llama.cpp context: evaluation of batches, and the memory (KV cache) of its sequences."""

import ctypes
from dataclasses import dataclass
from typing import Final

import llama_cpp.llama_cpp as lib
import numpy as np
from numpy.typing import NDArray

from puna.backend import BackendError, InvalidRequestError
from puna_ggml_kernels.loader import TILED_PREFILL_ROWS, set_order
from puna_llama_cpp.binding.batch import Batch, VectorBatch
from puna_llama_cpp.binding.native_log import captured_log
from puna_llama_cpp.binding.weights import Weights

KV_CACHE_TYPES: Final = {
    "f32": 0,
    "f16": 1,
    "q4_0": 2,
    "q4_1": 3,
    "q5_0": 6,
    "q5_1": 7,
    "q8_0": 8,
    "iq4_nl": 20,
    "bf16": 30,
}
FLASH_ATTENTION: Final = {
    "": lib.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "on": lib.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": lib.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextOptions:
    """How to make a context; lengths in tokens."""

    length: int
    """Of each sequence; llama.cpp rounds it up to a multiple of 256."""
    sequences: int
    """How many of that length there is room for."""
    max_sequences: int
    """How many there may be, together no longer than that room. More than `sequences` only for embeddings."""
    batch: int
    threads: int
    flash_attention: str = ""
    kv_cache_type: str = ""
    embeddings: bool = False


def _creation_error(message: str) -> Exception:
    """Return what it means that there is no context: llama.cpp says only in its log whether memory was lacking."""
    if not message or "alloc" in message or "memory" in message:
        return MemoryError(message or "llama.cpp could not make a context")
    return InvalidRequestError(message)


MIN_OUTPUTS: Final = 8
"""Tokens of a batch that may get logits, however few sequences there are."""


class AbortedError(Exception):
    """The evaluation was stopped; what the batch had begun is to be rewound."""


class Context:
    """Evaluates batches on one thread. `abort` may be called from any."""

    def __init__(self, weights: Weights, options: ContextOptions) -> None:
        """Allocate the memory. InvalidRequestError: an impossible option. MemoryError: there is no room."""
        parameters = lib.llama_context_default_params()
        parameters.n_ctx = -(-options.length // 256) * 256 * options.sequences
        parameters.n_batch = parameters.n_ubatch = options.batch
        parameters.n_seq_max = options.max_sequences
        if not options.embeddings:
            # Logits of one token each, or of some guesses more, but not of a whole batch.
            parameters.n_outputs_max = max(options.sequences, MIN_OUTPUTS)
        parameters.n_threads = parameters.n_threads_batch = options.threads
        parameters.no_perf = True
        parameters.embeddings = options.embeddings
        # One stream per sequence: a step reads only its own sequences' cells (README.md tells why).
        parameters.kv_unified = options.embeddings
        if options.flash_attention not in FLASH_ATTENTION:
            raise InvalidRequestError(f'flash attention is "on" or "off", not "{options.flash_attention}"')
        parameters.flash_attn_type = FLASH_ATTENTION[options.flash_attention]
        cache_type = options.kv_cache_type or "f16"
        if cache_type not in KV_CACHE_TYPES:
            raise InvalidRequestError(f'unknown KV cache type "{cache_type}": {", ".join(KV_CACHE_TYPES)}')
        parameters.type_k = parameters.type_v = KV_CACHE_TYPES[cache_type]
        # strlen as the abort callback: a C function that answers from one byte, asked at every node of the graph by a
        # thread that would otherwise have to take Python's lock each time.
        self._abort_flag = ctypes.create_string_buffer(2)
        strlen = ctypes.cast(ctypes.CDLL(None).strlen, ctypes.c_void_p).value
        parameters.abort_callback = lib.ggml_abort_callback(strlen or 0)
        parameters.abort_callback_data = ctypes.addressof(self._abort_flag)
        pointer = lib.llama_init_from_model(weights.pointer, parameters)
        if not pointer:
            raise _creation_error(captured_log().last_error())
        self.pointer = pointer
        self._logits_row = ctypes.c_float * weights.vocabulary.size
        self._state = np.empty(0, np.uint8)
        self._saved_state: tuple[int, int] | None = None
        """Whose state that is, and its bytes."""
        self._memory = lib.llama_get_memory(pointer)
        self.has_memory = bool(self._memory)
        self.supports_partial_removal = self.has_memory and not (
            lib.llama_model_is_recurrent(weights.pointer) or lib.llama_model_is_hybrid(weights.pointer)
        )
        self.can_shift = self.has_memory and bool(lib.llama_memory_can_shift(self._memory))
        self.length = min(lib.llama_n_ctx_seq(pointer), weights.context_length)
        self.batch_size = int(lib.llama_n_batch(pointer))
        self.pooling = lib.llama_pooling_type(pointer)
        weights.apply_adapters(pointer)

    def close(self) -> None:
        """Free it."""
        lib.llama_free(self.pointer)

    def set_abort(self, wanted: bool) -> None:
        """Have the running evaluation end at once, or no longer."""
        self._abort_flag.raw = b"\1\0" if wanted else b"\0\0"

    def decode(
        self, batch: Batch | VectorBatch, *, tiled_from: int = TILED_PREFILL_ROWS, batch_invariant: bool = False
    ) -> None:
        """Evaluate a batch. AbortedError: on demand. BackendError: llama.cpp failed.

        `tiles_from`: so many tokens of a sequence are part of a long prompt. `guesses`: some tokens may be the next
        ones, and must come out as they would one by one.
        """
        set_order(tiled_from=tiled_from, batch_invariant=batch_invariant)
        status = lib.llama_decode(self.pointer, batch.native)
        if status == 2:
            raise AbortedError
        if status != 0:
            raise BackendError(captured_log().last_error() or f"llama_decode failed with status {status}")

    def decode_vectors(self, batch: VectorBatch, *, causal: bool) -> None:
        """Evaluate vectors, each of which sees only those before it if `causal`. For errors see `decode`."""
        lib.llama_set_causal_attn(self.pointer, causal)
        try:
            self.decode(batch)
        finally:
            lib.llama_set_causal_attn(self.pointer, True)

    def logits(self, row: int) -> NDArray[np.float32]:
        """Return the logits of a row of the last batch: a view, valid and writable until the next one."""
        first = lib.llama_get_logits_ith(self.pointer, row)
        return np.frombuffer(self._logits_row.from_address(ctypes.addressof(first.contents)), np.float32)

    def pooled(self, slot: int, length: int) -> NDArray[np.float32]:
        """Return a copy of a sequence's pooled embedding."""
        return np.ctypeslib.as_array(lib.llama_get_embeddings_seq(self.pointer, slot), (length,)).copy()

    def truncate(self, slot: int, position: int) -> int:
        """Forget a sequence from a position on and return where it stands: there, or at 0 if that cannot be done."""
        if self._saved_state and self._saved_state[0] == slot:
            self._saved_state = None
        if lib.llama_memory_seq_rm(self._memory, slot, position, -1):
            return position
        lib.llama_memory_seq_rm(self._memory, slot, -1, -1)
        return 0

    def copy(self, source: int, target: int) -> bool:
        """Make a sequence's memory equal to another's; False if llama.cpp cannot, which leaves the target empty.

        By way of its state, which has as many cells as the sequence: `llama_memory_seq_cp` copies a whole stream, for
        which it takes the time and the memory of a full context. The state is kept until `end_copying`, for the next
        one who takes it over, and since new memory takes longer than copying.
        """
        state = ctypes.POINTER(ctypes.c_uint8)
        if self._saved_state is None or self._saved_state[0] != source:
            size = lib.llama_state_seq_get_size(self.pointer, source)
            if len(self._state) < size:
                self._state = np.empty(size, np.uint8)
            size = lib.llama_state_seq_get_data(self.pointer, self._state.ctypes.data_as(state), size, source)
            self._saved_state = (source, size)
        size = self._saved_state[1]
        if size and lib.llama_state_seq_set_data(self.pointer, self._state.ctypes.data_as(state), size, target):
            return True
        lib.llama_memory_seq_rm(self._memory, target, -1, -1)
        return False

    def release_copy_buffer(self) -> None:
        """Let go of the state of who was copied last."""
        self._state = np.empty(0, np.uint8)
        self._saved_state = None

    def shift(self, slot: int, start: int, end: int) -> None:
        """Forget a sequence's positions from `start` to `end` and move what follows there."""
        lib.llama_memory_seq_rm(self._memory, slot, start, end)
        lib.llama_memory_seq_add(self._memory, slot, end, -1, start - end)

    def clear(self) -> None:
        """Forget all sequences."""
        if self.has_memory:
            lib.llama_memory_clear(self._memory, False)
