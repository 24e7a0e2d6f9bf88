"""Which tokens go into the next batch: decided without a model, so that it can be tested and traced.

Every sequence that is writing gets its one token first: a batch may hold back nobody's stream. What room is left goes
to prompts, the most urgent and then the oldest first. Beside streams prompts get a small share of each batch, so that
they delay them by little; alone they fill the batch. How small it must be follows from how long steps take (`Pace`).
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

PREFILL_BESIDE_STREAMS = 32
"""Prompt tokens per batch while others write, as long as nothing has been measured."""
_LEAST_BESIDE = 8
_SLOWDOWN = 1.0
"""By how many times its own length prompts may lengthen a step of the streams."""
_STALE = 32
"""Steps after which the streams' own step is measured again."""
_WEIGHT = 0.2
"""Of the newest step in a running mean."""


@dataclass(frozen=True, slots=True)
class Want(Generic[K]):
    """What a running sequence has to evaluate."""

    key: K
    pending: int
    """Tokens not evaluated yet, at least one."""
    streaming: bool
    """Whether it is past its prompt."""
    priority: int = 0
    final: bool = True
    """Whether nothing follows these tokens; otherwise a picture does, which is not evaluated together with them."""


@dataclass(frozen=True, slots=True)
class Share(Generic[K]):
    """What it gets in the next batch."""

    key: K
    count: int
    completes: bool
    """Whether these are all of its tokens, so that the next one can be drawn."""


class Pace:
    """How long steps take on this machine, and so how many prompt tokens streams can bear beside them."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._plain = 0.0
        self._token = 0.0
        self._mixed = 0
        """Steps with streams and prompts since the last one with streams alone."""

    def observe(self, streams: int, prompt_tokens: int, seconds: float) -> None:
        """Take note of a step with so many streams and prompt tokens."""
        if not prompt_tokens:
            self._plain = seconds if self._mixed >= _STALE else _mean(self._plain, seconds)
            self._mixed = 0
        elif seconds > self._plain or not streams:
            self._token = _mean(self._token, (seconds - self._plain * bool(streams)) / prompt_tokens)
        self._mixed += bool(streams and prompt_tokens)

    def beside(self, streams: int, prompts: int) -> int:
        """Return how many prompt tokens may go into a step with these streams.

        The more wait for their first token, in proportion to those who wait for their next one, the more. Now and then
        none may, so that the streams' own step can be measured: under load there would be none without prompts.
        """
        if not self._plain or self._mixed >= _STALE:
            return 0
        more = 1 + prompts / max(streams, 1)
        if not self._token:
            return int(PREFILL_BESIDE_STREAMS * more)
        return max(_LEAST_BESIDE, int(_SLOWDOWN * self._plain * more / self._token))


def _mean(mean: float, value: float) -> float:
    return mean + _WEIGHT * (value - mean) if mean else value


def plan(wants: Sequence[Want[K]], room: int, beside: int = PREFILL_BESIDE_STREAMS) -> list[Share[K]]:
    """Divide a batch of `room` tokens among sequences given in order of arrival, at most as many as there is room."""
    streams = [want for want in wants if want.streaming]
    shares = [Share(want.key, 1, want.pending == 1) for want in streams[:room]]
    room -= len(shares)
    if streams:
        room = min(room, beside)
    for want in sorted((want for want in wants if not want.streaming), key=lambda want: -want.priority):
        count = min(room, want.pending)
        if count == 0:
            break
        shares.append(Share(want.key, count, want.final and count == want.pending))
        room -= count
    return shares
