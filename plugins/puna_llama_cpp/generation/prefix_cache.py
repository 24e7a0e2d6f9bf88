"""Where a new sequence goes, and how much of its prompt is there already.

The KV cache is a row of slots, each of which remembers what its last sequence left. A prompt takes the idle slot that
begins like it; if another slot, even a busy one, begins so much more like it that copying pays, that one is copied. A
prompt that begins like one that is being evaluated right now waits until it can be copied: what several have in common
is evaluated once, also when they arrive together. The one they wait for stops there, so that their ends are evaluated
together.

llama.cpp evaluates the sequences of a batch in one pass if their slots are neighbours in ascending order, and in a pass
for each row of neighbours otherwise. So whoever comes while others run goes beside them, and what the slot there held
moves to the one unused for longest.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

COPY_GAIN = 32
"""Tokens that a copy must save: less is evaluated sooner than copied."""
_COPY_COST = 1 / 64
"""Tokens that could be evaluated while one is copied; a slot is copied whole."""
WIDEST_GAP = 2
"""Idle slots between busy ones that are evaluated along: a token each takes less time than another pass."""
_BLOCK = 64


@dataclass(frozen=True, slots=True)
class Content:
    """What a slot holds."""

    slot: int
    tokens: Sequence[int]
    """Whose keys and values are in the cache and depend on nothing but the tokens before them."""
    idle: bool
    used: int
    """When it was used last: larger is later."""
    salt: str = ""


@dataclass(frozen=True, slots=True)
class Coming:
    """A prompt that is being evaluated."""

    slot: int
    prompt: Sequence[int]
    evaluated: int
    """Tokens that can be copied already."""
    salt: str = ""


@dataclass(frozen=True, slots=True)
class Wait:
    """For which of them a prompt should wait."""

    slot: int
    shared: int
    """Leading tokens they have in common."""
    present: int
    """Of its leading tokens, how many could be taken over already."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a prompt goes."""

    slot: int
    reused: int
    """Leading tokens that need no evaluation."""
    copied_from: int | None = None
    """The slot to copy first."""
    moved_to: int | None = None
    """The slot to which what this one holds is to be copied before that."""


def common_length(left: Sequence[int], right: Sequence[int]) -> int:
    """Return how many leading tokens are equal."""
    end = min(len(left), len(right))
    for start in range(0, end, _BLOCK):
        if left[start : start + _BLOCK] != right[start : start + _BLOCK]:
            while start < end and left[start] == right[start]:
                start += 1
            return start
    return end


def place(prompt: Sequence[int], salt: str, contents: Sequence[Content]) -> Place | None:
    """Choose a slot for a prompt; None if none is idle. At least one token is left to evaluate."""
    idle = [content for content in contents if content.idle]
    if not idle:
        return None
    most = max(len(prompt) - 1, 0)
    common = {
        content.slot: min(common_length(content.tokens, prompt), most) if content.salt == salt else 0
        for content in contents
    }
    best = max(contents, key=lambda content: (common[content.slot], content.idle, -content.used))
    oldest = min(idle, key=lambda content: content.used)
    if len(idle) < len(contents):
        own = _nearest(idle, [content.slot for content in contents if not content.idle], common)
    elif _worth_keeping(best, common[best.slot]):
        own = oldest  # taking that slot would cost another conversation more than it saves here
    else:
        own = best
    gain = common[best.slot] - common[own.slot]
    copied = gain >= max(COPY_GAIN, len(best.tokens) * _COPY_COST)
    moves = _worth_keeping(own, common[own.slot]) and oldest.used < own.used and not (copied and oldest is best)
    return Place(
        slot=own.slot,
        reused=common[best.slot if copied else own.slot],
        copied_from=best.slot if copied else None,
        moved_to=oldest.slot if moves else None,
    )


def _nearest(idle: Sequence[Content], busy: Sequence[int], common: Mapping[int, int]) -> Content:
    """Return the idle slot nearest to a busy one: llama.cpp evaluates only neighbours together."""

    def order(content: Content) -> tuple[int, int, int]:
        distance = min(abs(content.slot - slot) for slot in busy)
        return distance, -common[content.slot], content.used

    return min(idle, key=order)


def gaps(slots: Sequence[int]) -> list[int]:
    """Return the slots missing in this ascending row that cost less to evaluate along than to go around."""
    return [
        slot
        for left, right in itertools.pairwise(slots)
        if right - left - 1 <= WIDEST_GAP
        for slot in range(left + 1, right)
    ]


def wait(prompt: Sequence[int], salt: str, contents: Sequence[Content], coming: Sequence[Coming]) -> Wait | None:
    """Say for which prompt that is being evaluated and begins like it a prompt should wait, if for any."""
    most = max(len(prompt) - 1, 0)
    ahead = [
        (common, each.slot)
        for each in coming
        if each.salt == salt and each.evaluated < (common := min(common_length(each.prompt, prompt), most))
    ]
    if not ahead:
        return None
    shared, slot = max(ahead, key=lambda pair: pair[0])
    present = max((common_length(content.tokens, prompt) for content in contents if content.salt == salt), default=0)
    return Wait(slot, shared, present) if shared - present >= COPY_GAIN else None


def _worth_keeping(content: Content, common: int) -> bool:
    """Say whether most of what a slot holds would be lost to a prompt that shares only this much with it."""
    return len(content.tokens) - common > max(COPY_GAIN, common)
