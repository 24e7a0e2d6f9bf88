"""Draft tokens from a draft model: a second, small model with the same vocabulary (`drafter`).

The draft model has a KV cache of its own, with the same slots. For each slot this module knows which tokens are in it.
Before a draft, the cache is cut behind the tokens that it shares with the sequence, which also removes rejected draft
tokens, and the tokens that are missing are evaluated. So nobody tells it of new sequences, shifts or cancellations.
"""

import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from puna.backend import BackendError
from puna_llama_cpp.binding.batch import Batch
from puna_llama_cpp.binding.context import Context
from puna_llama_cpp.binding.weights import Weights
from puna_llama_cpp.generation.drafter import Asked, Drafter
from puna_llama_cpp.generation.ngram_index import NgramIndex
from puna_llama_cpp.generation.prefix_cache import common_length

MISSING_TOKENS: Final = 16
"""Tokens that a pass may evaluate in front of the first draft token. More of them are evaluated by themselves."""
_SHARED_CHUNK: Final = 64
"""Tokens of a prompt that are evaluated in a step with several sequences, which all wait for it."""


@dataclass(slots=True)
class _Cache:
    """What the draft model's KV cache holds of one slot."""

    tokens: list[int] = field(default_factory=list)
    index: "weakref.ref[NgramIndex] | None" = None
    """The sequence that the slot was used for last."""
    agreed: int = 0
    """How many leading tokens are known to be those of that sequence."""


class DraftModel(Drafter):
    """Drafts tokens with a small model. Use it on the decode thread."""

    def __init__(self, weights: Weights, context: Context, most: int, target: Weights) -> None:
        """Take ownership of the weights and the context. Draft at most `most` tokens for a sequence in a step.

        `target`: the model that verifies the tokens.
        """
        # A pass is assumed to take as much of a step as there are weights.
        super().__init__(context, most, target.vocabulary, weights.size_bytes / max(target.size_bytes, 1))
        self._weights = weights
        self._batch = Batch(context.batch_size, outputs_all=context.outputs_all)
        self._caches: dict[int, _Cache] = {}

    def close(self) -> None:
        """Free the context and the weights."""
        self._context.close()
        self._weights.close()

    def _missing(self, asked: Asked, decoding: int, step: float) -> list[int] | None:
        """Cut the cache behind what it shares with a sequence, and return the tokens that the next pass evaluates.

        A long text is evaluated here, in parts. None: there is no draft in this step.
        """
        cache = self._caches.setdefault(asked.slot, _Cache())
        same = cache.index is not None and cache.index() is asked.index
        start = cache.agreed if same else 0
        common = min(start + common_length(cache.tokens[start:], asked.tokens[start:]), len(asked.tokens) - 1)
        missing = asked.tokens[common:]
        # A vocabulary may be padded, so that the larger one has tokens without a meaning in the smaller one.
        if max(missing) >= self._weights.vocabulary.size or (len(missing) > MISSING_TOKENS and self._balance <= 0):
            return None
        if common < len(cache.tokens):
            self._context.truncate(asked.slot, common)
            del cache.tokens[common:]
        cache.index, cache.agreed = weakref.ref(asked.index), common
        chunk = self._context.batch_size if decoding == 1 else _SHARED_CHUNK
        while len(missing) > MISSING_TOKENS:
            part = missing[: min(chunk, len(missing) - 1)]
            began = time.perf_counter()
            self._evaluate([(asked.slot, part)], output=False)
            self._balance -= (time.perf_counter() - began) / step
            cache.agreed = len(cache.tokens)
            missing = missing[len(part) :]
            if decoding > 1 and len(missing) > MISSING_TOKENS:
                return None
        cache.agreed += len(missing)
        return missing

    def _evaluate(self, tokens: Sequence[tuple[int, list[int]]], *, output: bool) -> None:
        """Evaluate tokens of some slots. `_rows` has the row of the last token of each afterwards."""
        self._batch.clear()
        self._rows = [
            self._batch.add(slot, len(self._caches[slot].tokens), each, output=output) for slot, each in tokens
        ]
        try:
            self._context.decode(self._batch)
        except BackendError:
            self._caches.clear()
            raise
        for slot, each in tokens:
            self._caches[slot].tokens += each
