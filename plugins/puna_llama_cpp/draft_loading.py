"""Opens what drafts for a model: a second, small model (`generation.draft_model`), or a head (`generation.draft_head`).

A head is in the model's own file, behind its last layer, or in a file of its own: of the same architecture, EAGLE-3,
or an assistant of Gemma 4.
It is used where `draft_tokens` asks for drafts, which is the default only for a file of its own.

Drafting concerns only speed. A file that cannot be used is left out with a warning, and the model runs without it: one
that llama.cpp cannot load alone, a model that is no plain language model, or one with another vocabulary, or a head of
another kind (DFlash).
"""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import llama_cpp.llama_cpp as lib

from puna.backend import InvalidRequestError, ModelSpec
from puna.gguf import reader as gguf
from puna_llama_cpp.binding import architectures, heads, hidden_states
from puna_llama_cpp.binding.assistants import misfit
from puna_llama_cpp.binding.context import Context, ContextOptions
from puna_llama_cpp.binding.lazy_memory import lazily_zeroed
from puna_llama_cpp.binding.machine import threads_for
from puna_llama_cpp.binding.native_log import captured_log
from puna_llama_cpp.binding.operations import check_operations
from puna_llama_cpp.binding.weights import Weights

log = logging.getLogger(__name__)

_LEAST_BATCH: Final = 64
_MOST_LAYERS: Final = 512
_MOST_EXPERTS: Final = 1024
_MOST_PADDING: Final = 128
"""How many tokens one vocabulary may have more than the other, which are padding."""


@dataclass(frozen=True, slots=True)
class OpenedDraft:
    """A draft model's weights and context, or those of a head."""

    weights: Weights | None
    """None: those of the model, which has a head."""
    context: Context
    layers: tuple[int, ...] | None = None
    """For a head, the layers of the model that it reads; none: what the last one makes."""

    @property
    def reads_cache(self) -> bool:
        """True for a head that reads the KV cache of the model, which must have been empty when it was opened."""
        return self.weights is not None and self.weights.architecture in architectures.ASSISTANTS

    def close(self) -> None:
        """Free both."""
        self.context.close()
        if self.weights is not None:
            self.weights.close()


class _UnusableError(Exception):
    """The file is no draft model for this model; the message says why."""


def open_draft(
    spec: ModelSpec,
    target: Weights,
    context: Context,
    options: ContextOptions,
    is_cancelled: Callable[[], bool],
    *,
    lazy: bool,
    allocate: bool = True,
) -> OpenedDraft | None:
    """Open the draft model or the head of a specification; None if it has none, wants none, or it is of no use.

    `context`: the model's, which must be closed later, and `options`: those of it. `lazy`: the KV cache takes memory
    only as far as it is used. Without `allocate`, no tensor gets memory. Raises LoadCancelledError.
    """
    wanted = spec.draft_tokens > 0 and bool(spec.backend_options.get("speculative_decoding", True))
    if not wanted or target.embeds_only or not (spec.draft_path or target.head):
        return None
    if not context.accepts_drafts:
        if spec.draft_path:
            log.warning("no tokens are drafted for %s: %s takes no drafts", spec.name or spec.path, target.architecture)
        return None
    try:
        with ExitStack() as stack:
            weights = None
            is_head = not spec.draft_path or _is_head(spec, target)
            if spec.draft_path:
                own = replace(spec, path=spec.draft_path, adapter_paths=(), projector_paths=(), draft_path=None)
                weights = Weights(own, lambda _: None, is_cancelled, allocate=allocate, head=is_head)
                stack.callback(weights.close)
                _check_weights(weights, target)
            else:
                captured_log().clear()
            found = weights or target
            layers = _layers_read(found, target) if is_head else None
            own_options = replace(
                _options(options, found, spec), head=layers == (), target=context if is_head else None
            )
            with lazily_zeroed(wanted=lazy):
                draft = Context(found, own_options)
            stack.callback(draft.close)
            if allocate:
                check_operations(draft)
            if not draft.supports_partial_removal:
                raise _UnusableError("rejected tokens cannot be removed from its memory")
            stack.pop_all()
    except (InvalidRequestError, MemoryError, _UnusableError) as error:
        log.warning("no tokens are drafted with the draft model of %s: %s", spec.name or spec.path, error)
        return None
    return OpenedDraft(weights, draft, layers)


def _layers_read(head: Weights, target: Weights) -> tuple[int, ...]:
    """Return the layers that a head reads; empty: what the last one makes. Raises _UnusableError."""
    if head.architecture == architectures.EAGLE:
        if heads.reads_layers(head, target):
            return hidden_states.layers_read(head.pointer)
    elif heads.fits(head, target):
        return ()
    raise _UnusableError("its head does not read the states of the model")


def _is_head(spec: ModelSpec, target: Weights) -> bool:
    """Return whether the draft file is used as a head. Raises _UnusableError if it is no draft model either."""
    path = spec.draft_path or ""
    try:
        file = gguf.read(Path(path))
        _check_header(file)
        if file.architecture in architectures.ASSISTANTS and hidden_states.available():
            both = (gguf.read(Path(each), arrays=True, tokenizer=False) for each in (path, spec.path))
            if reason := misfit(*both):
                raise _UnusableError(reason)
            return True
    except (gguf.GGUFError, OSError) as error:
        raise _UnusableError(str(error)) from error
    architecture, known = file.architecture, hidden_states.available()
    if architecture == architectures.EAGLE and known and target.architecture in architectures.GIVES_LAYERS:
        return True
    # A smaller model of the same family may have a head for itself. It drafts as a whole.
    same = architecture == target.architecture and _width(file) == target.embedding_length
    if architecture not in architectures.HEADS and same and known and heads.has_head(file):
        return True
    if architecture in architectures.HEADS or heads.is_only_head(file):
        # llama.cpp loads it as a model, and ends the process at the first token.
        raise _UnusableError(f"a head of the architecture {architecture} is not run for {target.architecture}")
    return False


def _check_header(file: gguf.GGUF) -> None:
    """Raise _UnusableError for other files than models, and for numbers with which llama.cpp ends the process."""
    if file.metadata.get("general.type") == "adapter":
        raise _UnusableError("it is an adapter and no model")
    if file.architecture == "clip":
        raise _UnusableError("it is a projector and no model")
    layers, heads = file.integer("block_count"), file.integer("nextn_predict_layers")
    if file.has("block_count") and not 0 < layers <= _MOST_LAYERS:
        raise _UnusableError(f"it has {layers} layers, and llama.cpp runs 1 to {_MOST_LAYERS}")
    if heads > layers:
        raise _UnusableError(f"{heads} of its {layers} layers draft")
    experts, used = file.integer("expert_count"), file.integer("expert_used_count")
    if experts > _MOST_EXPERTS or used > experts or (experts and file.has("expert_used_count") and not used):
        raise _UnusableError(f"it uses {used} of {experts} experts, and llama.cpp runs up to {_MOST_EXPERTS}")


def _width(file: gguf.GGUF) -> object:
    return file.metadata.get(f"{file.architecture}.embedding_length")


def _check_weights(draft: Weights, target: Weights) -> None:
    if draft.embeds_only:
        raise _UnusableError("it generates no text")
    _check_vocabulary(draft, target)


def _options(options: ContextOptions, weights: Weights, spec: ModelSpec) -> ContextOptions:
    return replace(
        options,
        length=max(min(options.length, weights.context_length), 1),
        batch=max(options.batch, _LEAST_BATCH),
        threads=spec.threads or threads_for(weights.size_bytes),
        # Cheap already, and not every type fits the heads of every model.
        kv_cache_type="",
    )


def _check_vocabulary(draft: Weights, target: Weights) -> None:
    """Raise _UnusableError unless the same ids are the same tokens. Padding at the end may differ."""
    mine, theirs = draft.vocabulary, target.vocabulary
    common = min(mine.size, theirs.size)
    if lib.llama_vocab_type(mine.pointer) != lib.llama_vocab_type(theirs.pointer):
        raise _UnusableError("its vocabulary is of another kind than the model's")
    if abs(mine.size - theirs.size) > _MOST_PADDING:
        raise _UnusableError(f"its vocabulary has {mine.size} tokens, the model's {theirs.size}")
    text = lib.llama_vocab_get_text
    for token in range(common):
        if text(mine.pointer, token) != text(theirs.pointer, token):
            raise _UnusableError(f"its vocabulary has another token {token} than the model's")
