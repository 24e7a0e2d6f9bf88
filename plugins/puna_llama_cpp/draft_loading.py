"""Opens a model's draft model: a second, small model that proposes tokens (`generation.draft_model`).

A draft model concerns only speed. One that cannot be used is left out with a warning, and the model runs without it:
a file that llama.cpp cannot load alone, a model that is no plain language model, or one with another vocabulary. Heads
that read the hidden states of their target (MTP, EAGLE-3, DFlash) are such files too.
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
from puna_llama_cpp.binding import architectures
from puna_llama_cpp.binding.context import Context, ContextOptions
from puna_llama_cpp.binding.lazy_memory import lazily_zeroed
from puna_llama_cpp.binding.machine import threads_for
from puna_llama_cpp.binding.operations import check_operations
from puna_llama_cpp.binding.weights import Weights

log = logging.getLogger(__name__)

_LEAST_BATCH: Final = 64
_MOST_PADDING: Final = 128
"""How many tokens one vocabulary may have more than the other, which are padding."""


@dataclass(frozen=True, slots=True)
class OpenedDraft:
    """A draft model's weights and context."""

    weights: Weights
    context: Context

    def close(self) -> None:
        """Free both."""
        self.context.close()
        self.weights.close()


class _UnusableError(Exception):
    """The file is no draft model for this model; the message says why."""


def open_draft(
    spec: ModelSpec,
    target: Weights,
    options: ContextOptions,
    is_cancelled: Callable[[], bool],
    *,
    lazy: bool,
    allocate: bool = True,
) -> OpenedDraft | None:
    """Open the draft model of a specification; None if it has none, wants no drafts, or names one that is of no use.

    `options`: those of the model's own context. `lazy`: the KV cache takes memory only as far as it is used. Without
    `allocate`, no tensor gets memory. Raises LoadCancelledError.
    """
    wanted = spec.draft_tokens > 0 and bool(spec.backend_options.get("speculative_decoding", True))
    if not spec.draft_path or not wanted or target.embeds_only:
        return None
    own = replace(spec, path=spec.draft_path, adapter_paths=(), projector_paths=(), draft_path=None)
    try:
        with ExitStack() as stack:
            _check_architecture(spec.draft_path)
            weights = Weights(own, lambda _: None, is_cancelled, allocate=allocate)
            stack.callback(weights.close)
            if weights.embeds_only:
                raise _UnusableError("it generates no text")
            _check_vocabulary(weights, target)
            with lazily_zeroed(wanted=lazy):
                context = Context(weights, _options(options, weights, spec))
            stack.callback(context.close)
            if allocate:
                check_operations(context)
            if not context.supports_partial_removal:
                raise _UnusableError("rejected tokens cannot be removed from its memory")
            stack.pop_all()
    except (InvalidRequestError, MemoryError, _UnusableError) as error:
        log.warning("no tokens are drafted with the draft model of %s: %s", spec.name or spec.path, error)
        return None
    return OpenedDraft(weights, context)


def _options(options: ContextOptions, weights: Weights, spec: ModelSpec) -> ContextOptions:
    return replace(
        options,
        length=max(min(options.length, weights.context_length), 1),
        batch=max(options.batch, _LEAST_BATCH),
        threads=spec.threads or threads_for(weights.size_bytes),
        # Cheap already, and not every type fits the heads of every model.
        kv_cache_type="",
    )


def _check_architecture(path: str) -> None:
    try:
        architecture = gguf.read(Path(path)).architecture
    except (gguf.GGUFError, OSError) as error:
        raise _UnusableError(str(error)) from error
    if architecture in architectures.HEADS:
        raise _UnusableError(f"a head of the architecture {architecture} does not run by itself")


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
