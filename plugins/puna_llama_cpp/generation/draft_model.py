"""Draft tokens from a draft model: a second, small model with the same vocabulary.

The draft model reads the text of a sequence and names the token that it takes for the most likely one, then the one
behind it, up to the number that `draft_num_predict` allows. The model itself verifies them like all draft tokens
(`speculation`), so they change the speed of an answer and never its text.

The draft model has a KV cache of its own, with the same slots. For each slot this module knows which tokens are in it.
Before a draft, the cache is cut behind the tokens that it shares with the sequence, which also removes rejected draft
tokens, and the tokens that are missing are evaluated. So nobody tells it of new sequences, shifts or cancellations.
Several sequences are drafted together: one pass of the draft model computes a token for each.

Whether a pass pays follows from four measured figures (`draft_policy`): what the pass takes, what a draft token adds to
a step, how often draft tokens of the same confidence were accepted, and how often a pass led to an accepted token.
Evaluating a long prompt costs many passes at once. It is done only while drafts have saved more than it cost so far, so
long prompts with short answers soon go without.
"""

import logging
import time
import weakref
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from puna.backend import BackendError
from puna_llama_cpp.binding.batch import Batch
from puna_llama_cpp.binding.context import Context
from puna_llama_cpp.binding.weights import Weights
from puna_llama_cpp.generation.draft_policy import (
    CONFIDENCES,
    MODEL,
    MODEL_PASS,
    NO_DRAFT,
    Draft,
    Learned,
    StepCosts,
    median,
)
from puna_llama_cpp.generation.ngram_index import NgramIndex
from puna_llama_cpp.generation.prefix_cache import common_length

log = logging.getLogger(__name__)

MISSING_TOKENS: Final = 16
"""Tokens that a pass may evaluate in front of the first draft token. More of them are evaluated by themselves."""
_SHARED_CHUNK: Final = 64
"""Tokens of a prompt that are evaluated in a step with several sequences, which all wait for it."""
_PASSES: Final = 15
"""The number of newest passes whose median counts."""
_LEAST_PASS_SHARE: Final = 0.01
_FIRST_BALANCE: Final = 1.0
_MOST_BALANCE: Final = 64.0
"""How much of what drafts saved is kept to be spent on long prompts, in steps."""
_EARNED_BALANCE: Final = 0.01
"""What each draft that is asked for adds, so that a long prompt is tried again some time."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A sequence whose next tokens are asked for."""

    slot: int
    tokens: list[int]
    """Its text."""
    index: NgramIndex
    """As long as this is the same one, tokens were only appended."""
    limit: int
    """Tokens that may be drafted."""
    learned: Learned
    other: Draft = NO_DRAFT
    """A draft from earlier text. The draft model must promise to save more."""


@dataclass(slots=True)
class _Cache:
    """What the draft model's KV cache holds of one slot."""

    tokens: list[int] = field(default_factory=list)
    index: "weakref.ref[NgramIndex] | None" = None
    """The sequence that the slot was used for last."""
    agreed: int = 0
    """How many leading tokens are known to be those of that sequence."""


@dataclass(slots=True)
class _Running:
    """A draft that grows."""

    asked: Asked
    limit: int
    share: float
    """The part of a pass that counts for this sequence, in steps."""
    next: list[int]
    """Tokens for the next pass."""
    expected: float
    """Tokens that the step yields, over all of its sequences."""
    probability: float = 1.0
    """That of all tokens so far being accepted."""
    passes: int = 0
    tokens: list[int] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)

    def cost(self, row: float) -> float:
        """Return what the draft costs so far, in steps."""
        return self.passes * self.share + len(self.tokens) * row


class DraftModel:
    """Drafts tokens with a small model. Use it on the decode thread."""

    def __init__(self, weights: Weights, context: Context, most: int, target: Weights) -> None:
        """Take ownership of the weights and the context. Draft at most `most` tokens for a sequence in a step.

        `target`: the model that verifies the tokens.
        """
        self._weights, self._context, self._most = weights, context, most
        self._vocabulary = target.vocabulary
        self._batch = Batch(context.batch_size, outputs_all=context.outputs_all)
        self._caches: dict[int, _Cache] = {}
        self._passes: deque[float] = deque(maxlen=_PASSES)
        # Until it has been measured, a pass is assumed to take as much of a step as there are weights.
        self._assumed_share = weights.size_bytes / max(target.size_bytes, 1)
        self._balance = _FIRST_BALANCE
        """What drafts saved, less what they and long prompts cost."""
        self._failed = False
        self.seconds = 0.0
        """How long the last call of `draft` took."""

    def draft(self, asked: Sequence[Asked], decoding: int, costs: StepCosts) -> dict[int, Draft]:
        """Return a draft for each slot that gets one. `decoding`: the number of sequences that the step serves."""
        began = time.perf_counter()
        step = costs.step_seconds(decoding)
        drafts: dict[int, Draft] = {}
        # Without a step to compare with, the next one is that step.
        if step and not self._failed:
            try:
                drafts = self._draft(asked, decoding, step, costs.row_share())
            except BackendError:
                log.exception("the draft model failed; it is not asked again")
                self._failed = True
        self.seconds = time.perf_counter() - began
        return drafts

    def observe(self, draft: Draft, accepted: int) -> None:
        """Record how many tokens of a draft were accepted."""
        self._balance = min(self._balance + accepted * draft.worth - draft.cost, _MOST_BALANCE)

    def close(self) -> None:
        """Free the context and the weights."""
        self._context.close()
        self._weights.close()

    def _draft(self, asked: Sequence[Asked], decoding: int, step: float, row: float) -> dict[int, Draft]:
        self._balance = min(self._balance + _EARNED_BALANCE, _MOST_BALANCE)
        share = self._pass_share(step) / max(len(asked), 1)
        running = [
            _Running(each, limit, share, missing, float(decoding))
            for each in asked
            if (limit := self._limit(each, decoding, row, share))
            and (missing := self._missing(each, decoding, step)) is not None
        ]
        found = list(running)
        while running:
            self._pass([(each.asked.slot, each.next) for each in running])
            running = [each for number, each in enumerate(running) if self._extend(each, self._rows[number], row)]
        drafts = {}
        for each in found:
            cost = each.cost(row)
            each.asked.learned.account.add(-cost)
            worth = 1 / decoding
            if each.tokens:
                each.asked.learned.account.add(each.asked.other.cost)  # it is not evaluated
                gain = (each.expected - decoding) * worth - cost
                drafts[each.asked.slot] = Draft(each.tokens, each.kinds, cost, worth, gain)
            else:
                self._balance -= cost
        return drafts

    def _limit(self, asked: Asked, decoding: int, row: float, share: float) -> int:
        """Return how many tokens it pays to draft at most; 0: none."""
        rates, steps = asked.learned.rates, asked.learned.account.steps
        token_cost = row + share
        most = min(asked.limit, self._most, self._context.length - len(asked.tokens) - 1, int(steps / token_cost))
        duration, probability, expected, limit = 1.0, rates[MODEL_PASS], float(decoding), 0
        while limit < most and probability * duration > token_cost * expected:
            limit += 1
            duration += token_cost
            expected += probability
            probability *= rates[MODEL_PASS]
        if not limit and most > 0 and asked.other.gain <= 0 and rates.probe(MODEL_PASS):
            return 1
        return limit if (expected - decoding) / decoding - limit * token_cost > max(asked.other.gain, 0) else 0

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

    def _pass(self, tokens: Sequence[tuple[int, list[int]]]) -> None:
        began = time.perf_counter()
        self._evaluate(tokens, output=True)
        if len(tokens[0][1]) <= 2:
            self._passes.append(time.perf_counter() - began)

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

    def _extend(self, running: _Running, row_of_logits: int, row: float) -> bool:
        """Add the token of the last pass to a draft if it pays. Return whether another pass pays."""
        rates = running.asked.learned.rates
        running.passes += 1
        token, confidence = _most_likely(self._context.logits(row_of_logits))
        kind = MODEL + bisect_right(CONFIDENCES, confidence) - 1
        probability = running.probability * rates[kind]
        duration = 1 + running.cost(row)
        probing = running.limit == 1
        if token >= self._vocabulary.size or (probability * duration <= row * running.expected and not probing):
            rates.observe(MODEL_PASS, accepted=False)
            return False
        running.tokens.append(token)
        running.kinds.append(kind)
        running.probability, running.next = probability, [token]
        running.expected += probability
        if len(running.tokens) == running.limit or token in self._vocabulary.end_tokens:
            return False
        next_cost = row + running.share
        return probability * rates[MODEL_PASS] * (duration + row) > next_cost * running.expected

    def _pass_share(self, step: float) -> float:
        """Return how long a pass takes, in steps."""
        if not self._passes:
            return max(self._assumed_share, _LEAST_PASS_SHARE)
        return max(median(self._passes) / step, _LEAST_PASS_SHARE)


def _most_likely(logits: NDArray[np.float32]) -> tuple[int, float]:
    """Return the most likely token and its probability."""
    token = int(np.argmax(logits))
    return token, 1 / float(np.exp(logits - logits[token]).sum())
