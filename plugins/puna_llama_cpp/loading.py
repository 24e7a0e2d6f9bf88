"""Opening a model: weights, then a context that fits it. Blocks; runs in a thread."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import llama_cpp.llama_cpp as lib
from llama_cpp._ggml import libggml

from puna.backend import ConstraintLimits, ModelFacts, ModelSpec
from puna_llama_cpp.binding.context import KV_CACHE_TYPES, Context, ContextOptions
from puna_llama_cpp.binding.lazy_memory import lazily_zeroed
from puna_llama_cpp.binding.machine import threads_for
from puna_llama_cpp.binding.native_log import captured_log
from puna_llama_cpp.binding.weights import Weights
from puna_llama_cpp.embeddings.model import EmbeddingModel
from puna_llama_cpp.model import LlamaModel, WritingModel
from puna_llama_cpp.vision.projector import Projector

_BATCH = 512
_EMBEDDING_BATCH = 2048
_EMBEDDING_SLOTS = 16
_MOST_SEQUENCES = 16
"""That run at once unless more are asked for, where a cache takes memory only as far as it is used."""
_MOST_WHOLE_SEQUENCES = 4
"""The same where it takes all of its memory from the beginning."""
_CONTEXT_MULTIPLE = 256
_F16_BYTES = 2


@dataclass(frozen=True, slots=True)
class Opened:
    """A model's parts, ready to be put to work."""

    weights: Weights
    context: Context
    facts: ModelFacts
    slots: int
    """Sequences that the context can hold."""
    projector: Projector | None
    constraints: ConstraintLimits

    def start(self) -> LlamaModel:
        """Put the model to work, on the running event loop."""
        if self.facts.generates:
            return WritingModel(self.weights, self.context, self.facts, self.projector, self.constraints)
        return EmbeddingModel(self.weights, self.context, self.facts, self.slots)

    def close(self) -> None:
        """Free a model that was not started."""
        self.context.close()
        if self.projector:
            self.projector.close()
        self.weights.close()


def open_model(spec: ModelSpec, report: Callable[[float], None], stopped: Callable[[], bool]) -> Opened:
    """Load a model and make its context. For errors see Weights, Projector and Context."""
    # An abort would have gdb print a backtrace, which takes two seconds and pushes the reason out of the last lines.
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    with ExitStack() as stack:
        weights = Weights(spec, report, stopped)
        stack.callback(weights.close)
        projector = None
        if spec.projector_paths and not weights.embeds_only:
            projector = Projector(weights, spec, _threads(weights, spec))
            stack.callback(projector.close)
        opened = _with_context(weights, spec, projector)
        stack.pop_all()
    return opened


def _threads(weights: Weights, spec: ModelSpec) -> int:
    return spec.threads or threads_for(int(lib.llama_model_size(weights.pointer)))


def _with_context(weights: Weights, spec: ModelSpec, projector: Projector | None) -> Opened:
    length = max(min(spec.context_length, weights.context_length), 1)
    embeds = weights.embeds_only
    batch = spec.batch_size or (_EMBEDDING_BATCH if embeds else _BATCH)
    with lazily_zeroed(wanted=bool(spec.backend_options.get("lazy_kv_cache", True))) as lazily:
        most = _MOST_SEQUENCES if lazily and not _offloads(spec) else _MOST_WHOLE_SEQUENCES
        slots = _EMBEDDING_SLOTS if embeds else spec.parallel or _fitting_sequences(weights, spec, length, most)
        context = Context(
            weights,
            ContextOptions(
                length=length,
                sequences=1 if embeds else slots,
                most_sequences=slots,
                batch=max(min(batch, _padded(length)), slots) if embeds else max(batch, slots),
                threads=_threads(weights, spec),
                flash_attention=spec.flash_attention,
                kv_cache_type=spec.kv_cache_type,
                embeddings=embeds,
            ),
        )
    vocabulary = weights.vocabulary
    size, on_gpus = captured_log().buffer_bytes()
    if not spec.parallel and not embeds and most == _MOST_SEQUENCES:
        size -= captured_log().cache_bytes() * (slots - 1) // slots  # nobody asked for it, and it is there only if used
    facts = ModelFacts(
        context_length=length,
        parallel=1 if embeds else slots,
        size_bytes=(size or int(lib.llama_model_size(weights.pointer))) + (projector.size_bytes if projector else 0),
        vram_bytes=on_gpus,
        adds_bos=vocabulary.adds_bos,
        adds_eos=vocabulary.adds_eos,
        bos_id=vocabulary.bos,
        eos_id=vocabulary.eos,
        bos_text=vocabulary.text(vocabulary.bos),
        eos_text=vocabulary.text(vocabulary.eos),
        embedding_tokens=min(context.length, context.batch_size) if embeds else 0,
        embedding_length=weights.embedding_length if embeds and context.pooling != lib.LLAMA_POOLING_TYPE_RANK else 0,
        generates=not embeds,
        vision=projector is not None and projector.vision,
    )
    return Opened(weights, context, facts, slots, projector, spec.constraint_limits)


def _padded(length: int) -> int:
    return -(-length // _CONTEXT_MULTIPLE) * _CONTEXT_MULTIPLE


def _fitting_sequences(weights: Weights, spec: ModelSpec, length: int, most: int) -> int:
    """Return how many sequences' caches fit into half of the free memory, within bounds."""
    if not spec.memory_bytes:
        return most
    kind = KV_CACHE_TYPES.get(spec.kv_cache_type, KV_CACHE_TYPES["f16"])
    cell = weights.cache_bytes_per_token * int(libggml.ggml_type_size(kind)) // int(libggml.ggml_blck_size(kind))
    return max(1, min(most, spec.memory_bytes // 2 // max(cell // _F16_BYTES * _padded(length), 1)))


def _offloads(spec: ModelSpec) -> bool:
    """Say whether layers, and with them their caches, may lie on a GPU."""
    return bool(lib.llama_supports_gpu_offload()) and spec.gpu_layers != 0
