"""Opens a model: weights, an optional projector, and a context that fits the machine. Blocks; call it in a thread."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import llama_cpp.llama_cpp as lib
from llama_cpp._ggml import libggml

from puna.backend import ConstraintLimits, InvalidRequestError, ModelFacts, ModelSpec
from puna_llama_cpp.binding import architectures
from puna_llama_cpp.binding.context import KV_CACHE_TYPES, Context, ContextOptions
from puna_llama_cpp.binding.heads import wants_head
from puna_llama_cpp.binding.lazy_memory import lazily_zeroed
from puna_llama_cpp.binding.machine import threads_for
from puna_llama_cpp.binding.native_log import captured_log
from puna_llama_cpp.binding.operations import check_operations
from puna_llama_cpp.binding.turns import LOADING
from puna_llama_cpp.binding.weights import Weights
from puna_llama_cpp.draft_loading import OpenedDraft, open_draft
from puna_llama_cpp.embeddings.model import EmbeddingModel
from puna_llama_cpp.generation.assistant import Assistant
from puna_llama_cpp.generation.draft_head import Head
from puna_llama_cpp.generation.draft_model import DraftModel
from puna_llama_cpp.generation.drafter import Drafter
from puna_llama_cpp.generation.speculation import Speculator
from puna_llama_cpp.kv_store.cache import DEFAULT_MAX_BYTES, DiskCache, DiskCacheOptions
from puna_llama_cpp.kv_store.fingerprint import ModelIdentity
from puna_llama_cpp.model import GenerativeModel, LlamaModel
from puna_llama_cpp.vision.projector import Projector

_BATCH_TOKENS = 512
_EMBEDDING_BATCH_TOKENS = 2048
_EMBEDDING_SLOTS = 16
_MAX_LAZY_SEQUENCES = 16
"""Sequences that run at once by default, where a cache takes memory only as far as it is used."""
_MAX_ALLOCATED_SEQUENCES = 4
"""Sequences that run at once by default, where a cache takes all of its memory at the start."""
# llama.cpp rounds the cells of a sequence up to a multiple of this.
_CONTEXT_MULTIPLE = 256
_F16_BYTES = 2
_DRAFT_HISTORY_TOKENS = 65_536
"""Tokens of recent answers that are kept to draft from: about 16 MB."""


@dataclass(frozen=True, slots=True)
class LoadedParts:
    """The parts of a loaded model before its threads start."""

    weights: Weights
    context: Context
    facts: ModelFacts
    slots: int
    """The number of sequences for which the context has room."""
    projector: Projector | None
    constraints: ConstraintLimits
    speculator: Speculator | None
    identity: ModelIdentity
    disk: DiskCacheOptions | None
    """How the KV cache is kept on disk; None: it is not."""

    def start(self) -> LlamaModel:
        """Create the model and start its threads, on the running event loop."""
        if self.facts.generates:
            disk = DiskCache(self.context, self.disk, self.identity) if self.disk and self.context.has_memory else None
            return GenerativeModel(
                self.weights, self.context, self.facts, self.projector, self.constraints, self.speculator, disk
            )
        return EmbeddingModel(self.weights, self.context, self.facts, self.slots)

    def close(self) -> None:
        """Free a model that was not started."""
        if self.speculator:
            self.speculator.close()
        self.context.close()
        if self.projector:
            self.projector.close()
        self.weights.close()


def open_model(spec: ModelSpec, report: Callable[[float], None], is_cancelled: Callable[[], bool]) -> LoadedParts:
    """Load a model and create its context. Raises what Weights, Projector and Context raise.

    `report` gets the progress of the weights from 0 to 1; the load stops soon after `is_cancelled` returns true.
    """
    # When ggml aborts, it has gdb print a backtrace. That takes two seconds and pushes the reason out of the last
    # lines, which are what the core shows.
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    with LOADING, ExitStack() as stack:
        weights = Weights(spec, report, is_cancelled, head=wants_head(spec))
        stack.callback(weights.close)
        projector = None
        # An embedding model has no use for images, so a projector beside it is ignored.
        if spec.projector_paths and not weights.embeds_only:
            projector = Projector(weights, spec, _threads(weights, spec))
            stack.callback(projector.close)
        opened = _with_context(weights, spec, projector, is_cancelled)
        # From here on LoadedParts owns what the stack would have closed.
        stack.pop_all()
    return opened


def _threads(weights: Weights, spec: ModelSpec) -> int:
    return spec.threads or threads_for(weights.size_bytes)


@contextmanager
def planned_context(weights: Weights, spec: ModelSpec) -> Iterator[tuple[ContextOptions, bool]]:
    """Decide how the context is created, and yield its options. The context must be created within the block.

    Also yields whether the KV cache takes memory only as far as it is used.
    """
    length = max(min(spec.context_length, weights.context_length), 1)
    is_embedding = weights.embeds_only
    batch = spec.batch_size or (_EMBEDDING_BATCH_TOKENS if is_embedding else _BATCH_TOKENS)
    # The context allocates the KV cache, so the number of slots depends on whether that costs memory at once.
    with lazily_zeroed(wanted=bool(spec.backend_options.get("lazy_kv_cache", True))) as lazy:
        lazy = lazy and not _may_offload(spec)
        if is_embedding:
            slots = _EMBEDDING_SLOTS
            # Every sequence needs a row in a batch, and no text of an embedding model is longer than the context.
            batch = max(min(batch, _rounded_up(length)), slots)
        else:
            default_limit = _MAX_LAZY_SEQUENCES if lazy else _MAX_ALLOCATED_SEQUENCES
            slots = spec.parallel or _fitting_sequences(weights, spec, length, default_limit)
            slots = 1 if weights.architecture in architectures.SINGLE_SEQUENCE else slots
            batch = max(batch, slots)
        options = ContextOptions(
            length=length,
            sequences=1 if is_embedding else slots,
            max_sequences=slots,
            batch=batch,
            threads=_threads(weights, spec),
            flash_attention=spec.flash_attention,
            kv_cache_type=spec.kv_cache_type,
            embeddings=is_embedding,
            kept_states=_kept_states(weights, spec),
        )
        yield options, lazy


def _kept_states(weights: Weights, spec: ModelSpec) -> int:
    """Return how many older states of each sequence are kept: each takes as much memory as the newest."""
    drafts = weights.head or bool(spec.draft_path)
    return spec.draft_tokens if drafts and weights.architecture in architectures.GOES_BACK else 0


def _with_context(
    weights: Weights, spec: ModelSpec, projector: Projector | None, is_cancelled: Callable[[], bool]
) -> LoadedParts:
    with ExitStack() as stack:
        with planned_context(weights, spec) as (options, lazy):
            context = Context(weights, options)
        stack.callback(context.close)
        if not (context.has_memory or options.embeddings):
            # llama.cpp would end the process at the first batch.
            raise InvalidRequestError(
                f'the architecture "{weights.architecture}" has no KV cache, so it writes no text, and the file names '
                "no pooling to embed with"
            )
        check_operations(context)
        slots = options.sequences
        # Lazy slots beyond the first take memory only once they are used. They count only if a setting asked for them.
        counted_slots = 1 if lazy and not spec.parallel else slots
        facts = _facts(weights, context, projector, options, counted_slots)
        draft = open_draft(spec, weights, context, options, is_cancelled, lazy=lazy)
        if draft is not None:
            size, on_gpus = _logged_bytes(options, counted_slots)
            shared, shared_on_gpus = draft.weights.shared_bytes if draft.weights else (0, 0)
            facts = replace(
                facts,
                size_bytes=facts.size_bytes + size,
                vram_bytes=facts.vram_bytes + on_gpus,
                shared_bytes=facts.shared_bytes + shared,
                shared_vram_bytes=facts.shared_vram_bytes + shared_on_gpus,
            )
        stack.pop_all()
    identity = _identity(weights, context, spec, options)
    disk = _disk_options(spec.backend_options)
    return LoadedParts(
        weights,
        context,
        facts,
        options.max_sequences,
        projector,
        spec.constraint_limits,
        _speculator(spec, weights, context, draft),
        identity,
        disk,
    )


def _identity(weights: Weights, context: Context, spec: ModelSpec, options: ContextOptions) -> ModelIdentity:
    """Return what decides the bits of the KV cache and the layout of its state."""
    settings = {
        "length": lib.llama_n_ctx_seq(context.pointer),  # long-context models choose their rope factors by it
        "batch": options.batch,
        "threads": options.threads,
        "flash_attention": options.flash_attention,
        "kv_cache_type": options.kv_cache_type or "f16",
        "gpu_layers": spec.gpu_layers,
        "main_gpu": spec.main_gpu,
        "load_mode": weights.load_mode,
        "repacked": weights.repacked,
        "head": weights.head,
        "exact_kernels": spec.backend_options.get("exact_kernels", False),
    }
    return ModelIdentity((spec.path, *spec.adapter_paths), settings)


def _disk_options(given: Mapping[str, object]) -> DiskCacheOptions | None:
    folder = str(given.get("kv_cache_folder", ""))
    if not folder:
        return None
    most = given.get("kv_cache_folder_bytes", DEFAULT_MAX_BYTES)
    secret = str(given.get("kv_cache_folder_secret", ""))
    return DiskCacheOptions(Path(folder), most if isinstance(most, int) else DEFAULT_MAX_BYTES, secret)


def _speculator(spec: ModelSpec, weights: Weights, context: Context, draft: OpenedDraft | None) -> Speculator | None:
    """Return what drafts tokens; None if an option or the model forbids it."""
    if not context.accepts_drafts or not spec.backend_options.get("speculative_decoding", True):
        return None
    history = int(str(spec.backend_options.get("draft_history_tokens", _DRAFT_HISTORY_TOKENS)))
    model: Drafter | None = None
    if draft is not None and draft.layers is not None:
        kind = Assistant if draft.reads_cache else Head
        model = kind(draft, spec.draft_tokens, weights, context)
    elif draft is not None and draft.weights is not None:
        model = DraftModel(draft.weights, draft.context, spec.draft_tokens, weights)
    return Speculator(history, weights.vocabulary.tokenize_continuation, model)


def _facts(
    weights: Weights, context: Context, projector: Projector | None, options: ContextOptions, counted_slots: int
) -> ModelFacts:
    """Return the properties that the core asks about. `counted_slots`: the slots whose caches count as memory."""
    vocabulary = weights.vocabulary
    generates, parallel = not weights.embeds_only, options.sequences
    size, on_gpus = _logged_bytes(options, counted_slots)
    shared, shared_on_gpus = weights.shared_bytes
    if not (size or shared):
        size = weights.size_bytes
    ranks = context.pooling == lib.LLAMA_POOLING_TYPE_RANK  # a ranking model gives a score and no vector
    # An embedding model keeps nothing between two texts. A recurrent state has no room that could be counted in tokens.
    cached = generates and context.has_memory and not lib.llama_model_is_recurrent(weights.pointer)
    return ModelFacts(
        context_length=options.length,
        parallel=parallel,
        size_bytes=size + (projector.size_bytes if projector else 0),
        vram_bytes=on_gpus,
        shared_bytes=shared,
        shared_vram_bytes=shared_on_gpus,
        kv_cache_tokens=context.length * parallel if cached else 0,
        kv_cache_type=(options.kv_cache_type or "f16") if cached else "",
        adds_bos=vocabulary.adds_bos,
        adds_eos=vocabulary.adds_eos,
        bos_id=vocabulary.bos,
        eos_id=vocabulary.eos,
        bos_text=vocabulary.text(vocabulary.bos),
        eos_text=vocabulary.text(vocabulary.eos),
        embedding_tokens=0 if generates else min(context.length, context.batch_size),
        embedding_length=0 if generates or ranks else weights.embedding_length,
        generates=generates,
        vision=projector is not None and projector.vision,
    )


def _logged_bytes(options: ContextOptions, counted_slots: int) -> tuple[int, int]:
    """Return the memory of the model and the context that were opened last, and its part on GPUs."""
    # Where llama.cpp's buffers are, and how large, stands only in its log.
    size, on_gpus = captured_log().buffer_bytes()
    if not options.embeddings:
        # llama.cpp logs the whole cache as allocated, although unused slots of a lazy one take no memory.
        size -= captured_log().cache_bytes() * (options.sequences - counted_slots) // options.sequences
    return size, on_gpus


def _rounded_up(length: int) -> int:
    return -(-length // _CONTEXT_MULTIPLE) * _CONTEXT_MULTIPLE


def _fitting_sequences(weights: Weights, spec: ModelSpec, length: int, limit: int) -> int:
    """Return how many sequences' caches fit into half of the free memory, between 1 and `limit`."""
    if not spec.memory_bytes:
        return limit
    kind = KV_CACHE_TYPES.get(spec.kv_cache_type, KV_CACHE_TYPES["f16"])
    # `cache_bytes_per_token` counts two bytes for each value; other cache types are converted by their bytes for a
    # block.
    cell = weights.cache_bytes_per_token * int(libggml.ggml_type_size(kind)) // int(libggml.ggml_blck_size(kind))
    return max(1, min(limit, spec.memory_bytes // 2 // max(cell // _F16_BYTES * _rounded_up(length), 1)))


def _may_offload(spec: ModelSpec) -> bool:
    """Return whether layers, and with them their caches, may be placed on a GPU."""
    return bool(lib.llama_supports_gpu_offload()) and spec.gpu_layers != 0
