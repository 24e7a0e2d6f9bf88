"""The common part of draft models and heads: passes that name one token after the other, while they pay.

A drafter reads the text of a sequence and names the token that it takes for the most likely one, then the one behind
it, up to the number that `draft_num_predict` allows. The model itself verifies them like all draft tokens
(`speculation`), so they change the speed of an answer and never its text. Several sequences are drafted together: one
pass computes a token for each.

Whether a pass pays follows from four measured figures (`draft_policy`): what the pass takes, what a draft token adds to
a step, how often draft tokens of the same confidence were accepted, and how often a pass led to an accepted token.
Reading a long text costs many passes at once. It is done only while drafts have saved more than it cost so far, so
long prompts with short answers soon go without.
"""

import logging
import time
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from puna.backend import BackendError
from puna_llama_cpp.binding.context import Context
from puna_llama_cpp.binding.vocabulary import Vocabulary
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

log = logging.getLogger(__name__)

_PASSES: Final = 15
"""The number of newest passes whose median counts."""
_LEAST_PASS_SHARE: Final = 0.01
_FIRST_BALANCE: Final = 1.0
_MOST_BALANCE: Final = 64.0
"""How much of what drafts saved is kept to be spent on long texts, in steps."""
_EARNED_BALANCE: Final = 0.01
"""Added for each draft that is asked for, so that a long text is tried again some time."""


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


class Drafter(ABC):
    """Drafts tokens with passes of a context of its own. Use it on the decode thread."""

    timed_tokens = 2
    """A pass counts as measured if it evaluates no more tokens of a sequence."""

    def __init__(self, context: Context, most: int, vocabulary: Vocabulary, assumed_share: float) -> None:
        """Use a context. Draft at most `most` tokens for a sequence in a step.

        `vocabulary`: that of the model that verifies the tokens. `assumed_share`: what a pass takes of a step, until it
        has been measured.
        """
        self._context, self._most, self._vocabulary = context, most, vocabulary
        self._rows: list[int] = []
        """The row of logits of each sequence of the last pass."""
        self._passes: deque[float] = deque(maxlen=_PASSES)
        self._assumed_share = assumed_share
        self._balance = _FIRST_BALANCE
        """What drafts saved, less what they and long texts cost."""
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
            except BackendError as error:
                self._fail(error)
        self.seconds = time.perf_counter() - began
        return drafts

    def observe(self, draft: Draft, accepted: int) -> None:
        """Record how many tokens of a draft were accepted."""
        self._balance = min(self._balance + accepted * draft.worth - draft.cost, _MOST_BALANCE)

    @abstractmethod
    def close(self) -> None:
        """Free what the drafter owns."""

    def _fail(self, error: BackendError) -> None:
        """Log an error, and draft no more."""
        log.error("the draft model failed; it is not asked again", exc_info=error)
        self._failed = True

    @abstractmethod
    def _missing(self, asked: Asked, decoding: int, step: float) -> list[int] | None:
        """Return the tokens that the next pass evaluates for a sequence; None: there is no draft in this step."""

    @abstractmethod
    def _evaluate(self, tokens: Sequence[tuple[int, list[int]]], *, output: bool) -> None:
        """Evaluate tokens of some slots. `_rows` has the row of the last token of each afterwards."""

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

    def _pass(self, tokens: Sequence[tuple[int, list[int]]]) -> None:
        began = time.perf_counter()
        self._evaluate(tokens, output=True)
        if len(tokens[0][1]) <= self.timed_tokens:
            self._passes.append(time.perf_counter() - began)

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
