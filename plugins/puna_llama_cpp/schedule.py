"""Which tokens go into the next batch: decided without a model, so that it can be tested and traced.

Every sequence that is writing gets its one token first: a batch may hold back nobody's stream. What room is left goes
to prompts, the most urgent and then the oldest first. Beside streams prompts get a small share of each batch, so that
they delay them by little; alone they fill the batch.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

PREFILL_BESIDE_STREAMS = 64
"""Prompt tokens per batch while others write: about the time of two or three of their steps."""


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
