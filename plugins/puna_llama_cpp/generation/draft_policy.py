"""How many draft tokens a step takes: what they are likely to save, compared with what they cost.

A step without drafts yields one token for each of its sequences. Each draft token lengthens the step and yields a
token with some probability. Drafting one more token pays if it raises the tokens for each second:

    probability / its duration  >  tokens expected so far / duration so far

The unit of duration is a step without drafts. What a draft token adds to it is measured on the running machine: next to
nothing on a GPU, a quarter of a step on two cores. The probability that the first n draft tokens are all accepted is
the product of acceptance rates. Each is the measured share of accepted tokens among drafts of the same kind: where they
came from, and how long the text in front of them was the same, or how sure the draft model was. So text that does not
repeat itself soon costs nothing but a probe now and then.

Rates are learned, and while they are learned they can be wrong. `Account` bounds what that costs. Every token earns a
hundredth of a step, every accepted draft token what it saves, and a draft may cost no more than there is. So however
few drafts are accepted, n tokens take at most n / 100 + 2 steps longer than without drafts.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

_ROW_SHARE: Final = 0.25
"""The cost of a draft token before it has been measured, as a share of a step."""
_LEAST_ROW_SHARE: Final = 0.02
"""A lower bound for the measured cost, which is a difference of two noisy durations."""
_STEPS: Final = 15
"""The number of newest steps with drafts whose median counts."""
_COMPARED_STEPS: Final = 5
"""The number of newest steps without drafts with which a step with drafts is compared."""
_PRIOR_STEPS: Final = 3
"""The number of steps that the assumed cost counts for."""
_MAX_AGE_STEPS: Final = 128
"""Steps after which a measured cost no longer counts.

A machine that becomes busy makes drafts look expensive, and without drafts nothing would correct that.
"""
_MEMORY: Final = 48
"""The number of draft tokens over which an acceptance rate is measured."""
_PRIOR_WEIGHT: Final = 4
"""The number of draft tokens that an assumed rate counts for."""
_PROBE_INTERVAL: Final = 32
"""Of so many drafts that do not pay, one token of one is tried, since the text may have changed."""
_INITIAL_RATES: Final = (0.5, 0.6, 0.75, 0.85, 0.9)
"""Rates before any were measured, for texts that agree in at least as many tokens as MATCH_LENGTHS says."""
MATCH_LENGTHS: Final = (3, 4, 8, 16, 32)
"""Bounds of the classes into which drafts are divided by the number of equal tokens in front of them."""
OWN_TEXT: Final = 0
"""Rates from this index on, one for each class: drafts from the sequence's own text."""
HISTORY: Final = len(MATCH_LENGTHS)
"""Rates from this index on: drafts from other answers."""
RESUMED: Final = 2 * len(MATCH_LENGTHS)
"""Rates from this index on: drafts from a place that the text had left."""
AGREED: Final = 3 * len(MATCH_LENGTHS)
"""Rates from this index on: tokens that at least two places name, and none contradicts."""
CONTESTED: Final = 4 * len(MATCH_LENGTHS)
"""The rate of tokens that other places contradict, compared with the share of places that name them."""
_CONTESTED_RATE: Final = 0.8
FORCED: Final = CONTESTED + 1
"""The rate of text that a constraint forces. The model may divide it into tokens in another way."""
_FORCED_RATE: Final = 0.9
MODEL: Final = FORCED + 1
"""Rates from this index on, one for each of CONFIDENCES: tokens that a draft model proposed."""
CONFIDENCES: Final = (0.0, 0.3, 0.5, 0.7, 0.85, 0.95)
"""Bounds of the classes into which a draft model's tokens are divided by the probability that it gives them."""
_CONFIDENCE_RATES: Final = (0.2, 0.4, 0.6, 0.75, 0.85, 0.95)
MODEL_PASS: Final = MODEL + len(CONFIDENCES)
"""The rate of all tokens that a draft model computed, including those that it was too unsure of to propose."""
_MODEL_PASS_RATE: Final = 0.7
_ADVANCE_STEPS: Final = 2.0
"""What drafts may cost before any was accepted, in steps."""
_EARNED_STEPS: Final = 0.01
"""What each token adds to that."""
_MOST_STEPS: Final = 8.0
"""The most that an account holds: the cost of a long draft. Text that ceases to repeat itself can cost this once."""


class StepCosts:
    """Measures steps of decoding sequences with and without draft tokens."""

    def __init__(self) -> None:
        """Start without measurements, with an assumed cost of draft tokens."""
        self._count = 0
        self._steps: dict[int, deque[float]] = {}
        """By the number of sequences: durations of the last steps without drafts."""
        self._row_shares: deque[tuple[int, float]] = deque(maxlen=_STEPS)
        """What each draft token added to the last steps with drafts, and when."""

    def observe(self, decoding: int, drafted: int, seconds: float) -> None:
        """Record the duration of a step with this many decoding sequences and draft tokens, and no prompt."""
        self._count += 1
        if not drafted:
            self._steps.setdefault(decoding, deque(maxlen=_COMPARED_STEPS)).append(seconds)
        elif decoding in self._steps:
            step = self.step_seconds(decoding)
            self._row_shares.append((self._count, max((seconds / step - 1) / drafted, _LEAST_ROW_SHARE)))

    def step_seconds(self, decoding: int) -> float:
        """Return the duration of a step without drafts for this many sequences; 0: none was measured yet."""
        return median(self._steps[decoding]) if decoding in self._steps else 0.0

    def row_share(self) -> float:
        """Return how much a draft token lengthens a step, as a share of a step without drafts."""
        recent = [share for when, share in self._row_shares if self._count - when <= _MAX_AGE_STEPS]
        return median([*recent, *[_ROW_SHARE] * _PRIOR_STEPS])


def median(values: Iterable[float]) -> float:
    """Return the upper median."""
    # Durations on a busy machine have outliers that no average forgets soon.
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


class AcceptanceRates:
    """Measures which share of draft tokens is accepted, for each kind of draft."""

    def __init__(self) -> None:
        """Start with assumed rates."""
        self._rates = [*_INITIAL_RATES * 4, _CONTESTED_RATE, _FORCED_RATE, *_CONFIDENCE_RATES, _MODEL_PASS_RATE]
        self._weights = [float(_PRIOR_WEIGHT)] * len(self._rates)
        self._declined = [0] * len(self._rates)

    def __getitem__(self, kind: int) -> float:
        """Return the rate of a kind of draft."""
        return self._rates[kind]

    def observe(self, kind: int, *, accepted: bool) -> None:
        """Record whether a draft token was accepted. Tokens behind a rejected one were not tried."""
        weight = self._weights[kind] = min(self._weights[kind] + 1, _MEMORY)
        self._rates[kind] += (accepted - self._rates[kind]) / weight

    def probe(self, kind: int) -> bool:
        """Note a draft that does not pay. Return whether one token of it is drafted nevertheless."""
        self._declined[kind] = (self._declined[kind] + 1) % _PROBE_INTERVAL
        return not self._declined[kind]


class Account:
    """Bounds the total cost of drafts. All amounts are in steps."""

    def __init__(self) -> None:
        """Start with an advance, without which nothing could be learned."""
        self.steps = _ADVANCE_STEPS

    def earn(self, tokens: float) -> None:
        """Add what so many tokens earn, whether they were drafted or not."""
        self.add(tokens * _EARNED_STEPS)

    def add(self, steps: float) -> None:
        """Add what a draft saved, less what it cost."""
        self.steps = min(self.steps + steps, _MOST_STEPS)


@dataclass(slots=True)
class Learned:
    """What is known of the drafts for the requests of one cache salt."""

    rates: AcceptanceRates = field(default_factory=AcceptanceRates)
    account: Account = field(default_factory=Account)


@dataclass(frozen=True, slots=True)
class Draft:
    """Draft tokens, and for each the kind of draft by which its acceptance is counted."""

    tokens: list[int]
    kinds: list[int]
    cost: float = 0.0
    """What its evaluation adds to the step, in steps."""
    worth: float = 0.0
    """What an accepted token saves, in steps: 1 for a single sequence."""
    gain: float = 0.0
    """What the draft is expected to save, less its cost."""


NO_DRAFT: Final = Draft([], [])
