"""A llama.cpp context: evaluates batches, and holds the memory (KV cache) of its sequences."""

import ctypes
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import llama_cpp.llama_cpp as lib
import numpy as np
from numpy.typing import NDArray

from puna.backend import BackendError, InvalidRequestError
from puna_ggml_kernels.loader import TILED_PREFILL_ROWS, set_order, set_sequences
from puna_llama_cpp.binding import architectures
from puna_llama_cpp.binding.batch import Batch, VectorBatch
from puna_llama_cpp.binding.kept_memory import KeptMemory
from puna_llama_cpp.binding.native_log import captured_log
from puna_llama_cpp.binding.native_step import native_step
from puna_llama_cpp.binding.turns import TURNS
from puna_llama_cpp.binding.weights import Weights
from puna_llama_cpp.step_thread import unloaded_error

# ggml's numbers of the types that a KV cache may have.
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
    """How to create a context. Lengths are in tokens."""

    length: int
    """Tokens of each sequence; llama.cpp rounds it up to a multiple of 256."""
    sequences: int
    """The number of sequences of that length for which memory is allocated."""
    max_sequences: int
    """The number of sequences that may share that memory. It exceeds `sequences` only for embeddings."""
    batch: int
    threads: int
    flash_attention: str = ""
    kv_cache_type: str = ""
    embeddings: bool = False
    head: bool = False
    """Run the head that is in the file of a model instead of the model; its weights must have been loaded."""
    kept_states: int = 0
    """For a recurrent state: how many older ones are kept, so that so many draft tokens can be rejected."""
    target: Any = None
    """For a head in a file of its own: the Context of the model, whose embeddings and output matrix it may use.
    An assistant reads its KV cache. Creating the context of an assistant empties that cache."""


def _creation_error(message: str) -> Exception:
    """Return the error that explains why there is no context. Only llama.cpp's log says whether memory was lacking."""
    if not message or "alloc" in message or "memory" in message:
        return MemoryError(message or "llama.cpp could not make a context")
    return InvalidRequestError(message)


def _can_shift(cache_type: str, weights: Weights) -> bool:
    """Return whether llama.cpp shifts keys of this type right in the KV cache that it has just made.

    ggml moves the positions of f32 and f16 keys, and aborts for bf16. Quantized keys it moves as if they had been
    rotated before; where llama.cpp has not rotated them, because the length of a head is no multiple of 64, the shift
    ends the process with SIGSEGV. Where RoPE rotates a part of a quantized key, ggml aborts, since it cannot write back
    a part. A model of which every layer with attention has a sliding window has a second cache without layers, and
    ggml aborts when it shifts that one.
    """
    log = captured_log()
    layers, window = int(lib.llama_model_n_layer(weights.pointer)), int(lib.llama_model_n_swa(weights.pointer))
    rotates_all = architectures.rotates_all_layers(weights.architecture, layers=layers, window=window)
    if log.has_empty_cache() or not rotates_all:
        return False
    if cache_type in ("f32", "f16"):
        return True
    return cache_type != "bf16" and weights.rotates_whole_keys and not log.has_unrotated_keys()


MIN_OUTPUTS: Final = 8
"""Tokens of a batch that may get logits even if there are fewer sequences; draft tokens use the rest."""
SCORED_OUTPUTS: Final = 24
"""Further tokens of a batch that may get logits, for the log-probabilities of prompts."""


class AbortedError(Exception):
    """The evaluation was aborted. The caller must `undo` each sequence to where the batch began."""


class Context:
    """Evaluates batches on one thread. `set_abort` may be called from any thread."""

    def __init__(self, weights: Weights, options: ContextOptions) -> None:
        """Allocate the memory.

        Raises InvalidRequestError for an impossible option, and MemoryError if the memory does not suffice.
        """
        parameters = lib.llama_context_default_params()
        parameters.n_ctx = -(-options.length // 256) * 256 * options.sequences
        # One micro-batch for each batch: the scheduler has already divided the prompts.
        parameters.n_batch = parameters.n_ubatch = options.batch
        parameters.n_seq_max = options.max_sequences
        self.outputs_all = weights.architecture in architectures.UNSELECTED_OUTPUTS
        """True if every token of a batch must get logits, so that the row of a token has its logits."""
        self.one_output = weights.architecture in architectures.MASKED_FIRST_ROW
        """True if each batch needs one row of logits, and gets no more."""
        if not (options.embeddings or self.outputs_all):
            # Without a bound llama.cpp reserves logits for every token of a batch, a vocabulary's width each.
            parameters.n_outputs_max = max(options.sequences, MIN_OUTPUTS) + SCORED_OUTPUTS
        parameters.n_threads = parameters.n_threads_batch = options.threads
        # llama.cpp's own timers are not used, and read a clock for each evaluation.
        parameters.no_perf = True
        parameters.embeddings = options.embeddings
        parameters.n_rs_seq = options.kept_states
        if options.head:
            parameters.ctx_type = lib.LLAMA_CONTEXT_TYPE_MTP
        if options.target is not None:
            parameters.ctx_other = options.target.pointer
        # One KV stream for each sequence: a step reads only the cells of its own sequences. README.md gives the
        # figures.
        parameters.kv_unified = options.embeddings
        if options.flash_attention not in FLASH_ATTENTION:
            raise InvalidRequestError(f'flash attention is "on" or "off", not "{options.flash_attention}"')
        plain = weights.architecture in architectures.WITHOUT_FLASH_ATTENTION
        parameters.flash_attn_type = FLASH_ATTENTION["off" if plain else options.flash_attention]
        cache_type = options.kv_cache_type or "f16"
        if cache_type not in KV_CACHE_TYPES:
            raise InvalidRequestError(f'unknown KV cache type "{cache_type}": {", ".join(KV_CACHE_TYPES)}')
        parameters.type_k = parameters.type_v = KV_CACHE_TYPES[cache_type]
        # ggml asks the abort callback at every node of the graph. A Python callback would take the interpreter's lock
        # each time, so C's strlen serves as the callback: it returns the length of a string of zero or one byte, which
        # `set_abort` changes.
        self._abort_flag = ctypes.create_string_buffer(2)
        strlen = ctypes.cast(ctypes.CDLL(None).strlen, ctypes.c_void_p).value
        parameters.abort_callback = lib.ggml_abort_callback(strlen or 0)
        parameters.abort_callback_data = ctypes.addressof(self._abort_flag)
        pointer = lib.llama_init_from_model(weights.pointer, parameters)
        if not pointer:
            raise _creation_error(captured_log().last_error())
        self._pointer: Any = pointer
        self.max_outputs = int(parameters.n_outputs_max or parameters.n_batch)
        """Tokens of a batch that may get logits. llama.cpp aborts the process if there are more."""
        self._logits_row = ctypes.c_float * weights.vocabulary.size
        self._copied, self._exchanged = KeptMemory(), KeptMemory()
        self._saved_state: tuple[int, NDArray[np.uint8]] | None = None
        """The slot that was copied last, and its state in `_copied`."""
        self._memory_pointer = lib.llama_get_memory(pointer)
        self.has_memory = bool(self._memory_pointer)
        # A recurrent state summarizes all tokens so far, and nothing can be removed from it. A head has none.
        recurrent = lib.llama_model_is_recurrent(weights.pointer) or lib.llama_model_is_hybrid(weights.pointer)
        self.supports_partial_removal = self.has_memory and (options.head or not recurrent)
        self.most_draft_tokens = sys.maxsize if self.supports_partial_removal else int(lib.llama_n_rs_seq(pointer))
        """Draft tokens of a sequence that `reject` can remove."""
        undrafted = architectures.MASKED_FIRST_ROW | architectures.OTHER_GRAPH_FOR_ONE_TOKEN
        self.accepts_drafts = self.most_draft_tokens > 0 and weights.architecture not in undrafted
        """True if draft tokens may be evaluated: rejected ones can be removed, and change nothing else."""
        self._window = max(int(lib.llama_model_n_swa(weights.pointer)), 0)
        self.can_shift = (
            _can_shift(cache_type, weights) and self.has_memory and bool(lib.llama_memory_can_shift(self._memory))
        )
        # Rounding up may exceed the training length, beyond which an embedding model has no positions.
        self.length = min(lib.llama_n_ctx_seq(pointer), weights.context_length)
        self.batch_size = int(lib.llama_n_batch(pointer))
        self.waited_seconds = 0.0
        """How long the last evaluation waited until other models of the process had computed."""
        self._waits = False
        self._native_step = native_step()
        self.pooling = lib.llama_pooling_type(pointer)
        weights.apply_adapters(pointer)

    def close(self) -> None:
        """Free the context. A second call does nothing."""
        pointer, self._pointer = self._pointer, None
        if pointer is not None:
            lib.llama_free(pointer)

    @property
    def pointer(self) -> Any:  # noqa: ANN401 (a pointer, typed two ways in the binding)
        """llama.cpp's context. Raises BackendError once it is closed."""
        if self._pointer is None:
            raise unloaded_error()
        return self._pointer

    @property
    def _memory(self) -> Any:  # noqa: ANN401
        return self._memory_pointer if self.pointer else None

    def set_abort(self, wanted: bool) -> None:
        """Set or clear the flag that makes the running evaluation, or the next one, end early."""
        self._abort_flag.raw = b"\1\0" if wanted else b"\0\0"

    def decode(
        self,
        batch: Batch | VectorBatch,
        *,
        tiled_from: int = TILED_PREFILL_ROWS,
        invariant_sequences: int = 0,
        prompts: Sequence[int] | None = None,
        lengths: Sequence[int] = (),
        draws: int = 0,
    ) -> None:
        """Evaluate a batch. Raises AbortedError after `set_abort`, and BackendError if llama.cpp failed.

        `tiled_from`: the number of a sequence's tokens from which attention is computed as in a long prompt.
        `invariant_sequences`: the number of sequences in a batch of newest tokens and draft tokens, each of which must
        get the bits that it would get without draft tokens. `prompts`: the slots whose attention has a prompt's
        order by default, and by nothing else; None: a slot's number of tokens decides. `lengths`: see `decode_apart`.
        `draws`: the address of the first `native_step.Draw`, which are made at once where the kernels are installed.
        """
        self._waits = True
        with TURNS as self.waited_seconds:
            self._waits = False
            if self._native_step is not None and not lengths:
                status = self._native_step(
                    self.pointer,
                    batch,
                    draws,
                    tiled_from=tiled_from,
                    invariant_sequences=invariant_sequences,
                    prompts=prompts,
                )
            else:
                status = self._decode(batch, tiled_from, invariant_sequences, prompts, lengths)
        if status == 2:
            raise AbortedError
        if status != 0:
            raise BackendError(captured_log().last_error() or f"llama_decode failed with status {status}")

    def _decode(
        self,
        batch: Batch | VectorBatch,
        tiled_from: int,
        invariant_sequences: int,
        prompts: Sequence[int] | None,
        lengths: Sequence[int],
    ) -> int:
        set_order(tiled_from=tiled_from, invariant_sequences=invariant_sequences, prompts=prompts)
        if lengths:
            set_sequences(lengths)
        try:
            return int(lib.llama_decode(self.pointer, batch.native))
        finally:
            if lengths:
                set_sequences(())
            # The order belongs to the process, and the next image to be encoded must get ggml's.
            set_order(tiled_from=TILED_PREFILL_ROWS)

    def decode_apart(self, batch: Batch, lengths: Sequence[int]) -> None:
        """Evaluate a batch of whole sequences of these lengths. Raises what `decode` raises.

        With the kernels, each gets the bits that it has in a batch of its own.
        """
        self.decode(batch, lengths=lengths)

    def turns_passed(self) -> int:
        """Return the number of turns of the process while this context waits for its own; 0 while it does not.

        It shows that a model which waits does not hang. May be called from any thread.
        """
        return TURNS.passed if self._waits else 0

    def decode_vectors(self, batch: VectorBatch, *, causal: bool, prompts: Sequence[int] | None = None) -> None:
        """Evaluate vectors. `causal`: each attends only to earlier ones. For `prompts` and errors see `decode`."""
        # The setting belongs to the context and not to the batch, so it is reset even after a failure.
        lib.llama_set_causal_attn(self.pointer, causal)
        try:
            self.decode(batch, prompts=prompts)
        finally:
            lib.llama_set_causal_attn(self.pointer, True)

    def logits(self, row: int) -> NDArray[np.float32]:
        """Return the logits of a row of the last batch: a writable view that the next batch invalidates."""
        return np.frombuffer(self._logits_row.from_address(self.logits_address(row)), np.float32)

    def logits_address(self, row: int) -> int:
        """Return the address of the logits of a row of the last batch."""
        return ctypes.addressof(lib.llama_get_logits_ith(self.pointer, row).contents)

    def pooled(self, slot: int, length: int) -> NDArray[np.float32]:
        """Return a copy of the pooled embedding of a sequence."""
        return np.ctypeslib.as_array(lib.llama_get_embeddings_seq(self.pointer, slot), (length,)).copy()

    def truncate(self, slot: int, position: int) -> int:
        """Remove a sequence's memory from a position on, and return where it ends now.

        That is the position, or 0 if llama.cpp could only remove all of it (recurrent models).
        """
        if not self.supports_partial_removal and position <= lib.llama_memory_seq_pos_max(self._memory, slot):
            # llama.cpp would take an older state for that of the position, even one from before the last batch.
            position = 0
        return self.reject(slot, position)

    def reject(self, slot: int, position: int) -> int:
        """Remove draft tokens of the last batch like `truncate`, also from a recurrent state, and once only."""
        # The saved state is a snapshot that a truncated slot no longer matches.
        if self._saved_state and self._saved_state[0] == slot:
            self._saved_state = None
        if lib.llama_memory_seq_rm(self._memory, slot, position, -1):
            return position
        lib.llama_memory_seq_rm(self._memory, slot, -1, -1)
        return 0

    def undo(self, slot: int, position: int) -> int:
        """Remove what an aborted batch added to a sequence from a position on, like `truncate`.

        Of a recurrent state with older ones nothing is left: llama.cpp has gone back to one that the batch never wrote.
        """
        return self.truncate(slot, position if self.most_draft_tokens in (0, sys.maxsize) else 0)

    def shortest_cut(self, length: int) -> int:
        """Return how many tokens a copied or restored state of `length` tokens must keep when it is truncated.

        A recurrent state keeps all of them. A model with a sliding window keeps all but the last: llama.cpp leaves out
        of a state what the window has passed, and a shorter sequence would lack it.
        """
        if not self.supports_partial_removal:
            return length
        return length - 1 if 0 < self._window < length else 0

    def copy(self, source: int, target: int) -> bool:
        """Make a sequence's memory equal to another's. False: llama.cpp failed, and the target is empty.

        The copy goes by way of the sequence's state, which has as many cells as the sequence. `llama_memory_seq_cp`
        would copy a whole stream, which takes the time and the memory of a full context. The state is kept until
        `forget_copy`, since the next sequence often copies the same source.
        """
        if self._saved_state is None or self._saved_state[0] != source:
            self._saved_state = (source, self.state(source, self._copied.take(self.state_bytes(source))))
        return self._write(target, self._saved_state[1])

    def exchange(self, left: int, right: int) -> tuple[bool, bool]:
        """Exchange the memory of two sequences. False: llama.cpp failed, and the left or the right one is empty."""
        kept = self.state(left, self._exchanged.take(self.state_bytes(left)))
        return self.copy(right, left), self.set_state(right, kept)

    def state_bytes(self, slot: int) -> int:
        """Return the size of the copy that `state` would make. Takes a tenth of a millisecond."""
        return int(lib.llama_state_seq_get_size(self.pointer, slot))

    def state(self, slot: int, buffer: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Return a copy of a sequence's memory in llama.cpp's own format, which `set_state` of an equal context takes.

        The copy is a part of `buffer` if that is large enough: the kernel zeroes fresh memory, which takes five to
        twenty times as long as the copy. It is empty if llama.cpp failed.
        """
        size = self.state_bytes(slot)
        state = buffer if buffer is not None and len(buffer) >= size else np.empty(size, np.uint8)
        data = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        return state[: lib.llama_state_seq_get_data(self.pointer, data, len(state), slot)]

    def set_state(self, slot: int, state: NDArray[np.uint8]) -> bool:
        """Replace a sequence's memory. False: llama.cpp does not accept the state, and the slot is empty."""
        if self._saved_state and self._saved_state[0] == slot:
            self._saved_state = None
        return self._write(slot, state)

    def _write(self, slot: int, state: NDArray[np.uint8]) -> bool:
        data = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        if len(state) and lib.llama_state_seq_set_data(self.pointer, data, len(state), slot):
            return True
        lib.llama_memory_seq_rm(self._memory, slot, -1, -1)
        return False

    def forget_copy(self) -> None:
        """Forget the state that the last copy left, since its source may change."""
        self._saved_state = None

    def release_copies(self) -> None:
        """Let the system have the memory of copies."""
        self._saved_state = None
        self._copied.release()
        self._exchanged.release()

    def shift(self, slot: int, start: int, end: int) -> None:
        """Remove a sequence's positions from `start` to `end`, and move the later ones down."""
        lib.llama_memory_seq_rm(self._memory, slot, start, end)
        lib.llama_memory_seq_add(self._memory, slot, end, -1, start - end)

    def clear(self) -> None:
        """Remove the memory of all sequences."""
        if self.has_memory:
            # False keeps the data: cells without a sequence are masked, and zeroing them would touch all of their
            # pages.
            lib.llama_memory_clear(self._memory, False)
