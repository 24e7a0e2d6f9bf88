"""The scheduler: which tokens go into the next batch, and how many of them may be prompt tokens.

It decides without a model or a clock of its own, so tests can drive it with numbers.

Two kinds of sequences compete for a batch. A decoding sequence has one token to evaluate, and a client watches for the
next one. A sequence in prefill has many prompt tokens, and its client waits for the first answer token. `plan` serves
every decoding sequence first, so no batch ever holds back a stream. Prompts share the remaining room: by priority, and
among equals in order of arrival (chunked prefill).

Prompt tokens lengthen the step for every decoding sequence in the batch. Beside decoding sequences, prompts therefore
get a token budget. `PrefillBudget` measures two figures on the running machine, both as moving averages:

    decode_seconds          a step of decoding sequences alone
    prefill_token_seconds   what one prompt token adds to a step

A budget of decode_seconds / prefill_token_seconds tokens doubles the length of a step. The budget grows with the
ratio of waiting prompts to decoding sequences, since a long queue of prompts should not wait for a few streams. Under
steady load every step would carry prompts and decode_seconds would go stale, so every 32nd such step carries none.

A part of a prompt costs a pass over the weights, since llama.cpp divides a batch of unequal sequences, and a pass over
all keys and values before it, however short the part is. Small models decode so fast that the parts would be tiny, and
most of a prompt's time such costs. So a step of decoding counts as LEAST_DECODE_SECONDS at least.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from puna_ggml_kernels.loader import SHORTEST_PREFILL

K = TypeVar("K", bound=Hashable)

DEFAULT_PREFILL_TOKENS = 32
"""Prompt tokens for each batch beside decoding sequences, until prefill has been measured."""
_MIN_PREFILL_TOKENS = 8
"""The least budget, so that prompts make progress however slow they are."""
_MAX_SLOWDOWN = 1.0
"""How far prompts may lengthen a step of decoding sequences, in multiples of that step's own length."""
LEAST_DECODE_SECONDS = 0.02
"""The step on which the budget is based if decoding takes less. One stream beside one prompt is slowed to about 23
tokens a second by it, which is faster than people read."""
_REMEASURE_STEPS = 32
"""Mixed steps after which a step of decoding sequences alone is measured again."""
_NEWEST_WEIGHT = 0.2
"""Weight of the newest value in a moving average."""


# This and BatchShare are not frozen. Each step makes them for each sequence, and frozen ones take twice as long.
@dataclass(slots=True)
class WorkItem(Generic[K]):
    """The tokens that one sequence has to evaluate."""

    key: K
    pending: int
    """Tokens that are not evaluated yet; at least one."""
    decoding: bool
    """Whether the prompt is evaluated, so that only the newest token is pending."""
    priority: int = 0
    final: bool = True
    """Whether nothing follows these tokens. False if an image follows, which needs a batch of its own."""


@dataclass(slots=True)
class BatchShare(Generic[K]):
    """The tokens of one sequence that go into the next batch."""

    key: K
    count: int
    completes: bool
    """Whether these are all pending tokens of the sequence, so that its next token can be sampled."""


class PrefillBudget:
    """Measures steps, and computes how many prompt tokens may go into a step beside decoding sequences."""

    def __init__(self) -> None:
        """Start without measurements."""
        self._decode_seconds = 0.0
        self._prefill_token_seconds = 0.0
        self._mixed_steps = 0
        """Steps with decoding sequences and prompts since the last step of decoding sequences alone."""

    def observe(self, decoding: int, prompt_tokens: int, seconds: float) -> None:
        """Record the duration of a step with this many decoding sequences and prompt tokens."""
        if not prompt_tokens:
            # After many mixed steps the old average says nothing about the sequences that decode now.
            stale = self._mixed_steps >= _REMEASURE_STEPS
            self._decode_seconds = seconds if stale else _moving_average(self._decode_seconds, seconds)
            self._mixed_steps = 0
        # A mixed step that was faster than an average step of decoding alone is noise. Counting it would give prompt
        # tokens a cost of zero or less, and the budget divides by that cost.
        elif seconds > self._decode_seconds or not decoding:
            added = (seconds - self._decode_seconds * bool(decoding)) / prompt_tokens
            self._prefill_token_seconds = _moving_average(self._prefill_token_seconds, added)
        self._mixed_steps += bool(decoding and prompt_tokens)

    @property
    def decode_seconds(self) -> float:
        """The duration of a step of decoding sequences alone; 0: not measured yet."""
        return self._decode_seconds

    def tokens(self, decoding: int, prompts: int) -> int:
        """Return how many prompt tokens may go into a step with this many decoding sequences and waiting prompts.

        The result is 0 when a step of decoding sequences alone has to be measured first.
        """
        if not self._decode_seconds or self._mixed_steps >= _REMEASURE_STEPS:
            return 0
        # Twice the prompts get twice the tokens, so a long queue does not wait for a few streams.
        queue_factor = 1 + prompts / max(decoding, 1)
        if not self._prefill_token_seconds:
            return int(DEFAULT_PREFILL_TOKENS * queue_factor)
        seconds = _MAX_SLOWDOWN * max(self._decode_seconds, LEAST_DECODE_SECONDS) * queue_factor
        return max(_MIN_PREFILL_TOKENS, int(seconds / self._prefill_token_seconds))


def _moving_average(average: float, value: float) -> float:
    # 0 stands for "not measured yet", so the first value counts in full.
    return average + _NEWEST_WEIGHT * (value - average) if average else value


def plan(
    items: Sequence[WorkItem[K]], batch_size: int, prefill_tokens: int = DEFAULT_PREFILL_TOKENS
) -> list[BatchShare[K]]:
    """Divide a batch of `batch_size` tokens among sequences that are given in order of arrival.

    `prefill_tokens` bounds the prompt tokens beside decoding sequences; prompts alone may fill the batch. Where there
    is room, no part of a prompt beside decoding sequences is a single token: the kernels would take it for one that is
    decoded, and it would get other bits than in a prompt that is evaluated alone.
    """
    decoding = [item for item in items if item.decoding]
    shares = [BatchShare(item.key, 1, item.pending == 1) for item in decoding[:batch_size]]
    # Most steps hold no prompt.
    if len(decoding) == len(items):
        return shares
    room = batch_size - len(shares)
    if decoding:
        room = min(room, prefill_tokens)
    # With less room, a prompt of three tokens could not be divided, and would wait for ever.
    divides = bool(decoding) and room > SHORTEST_PREFILL
    # The sort is stable, so prompts of one priority keep their order of arrival.
    for item in sorted((item for item in items if not item.decoding), key=lambda item: -item.priority):
        count = min(room, item.pending)
        if divides and count < item.pending:
            count = min(count, item.pending - SHORTEST_PREFILL)
            if count < SHORTEST_PREFILL:
                break
        if count == 0:
            break
        shares.append(BatchShare(item.key, count, item.final and count == item.pending))
        room -= count
    return shares
