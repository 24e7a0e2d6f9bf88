"""Where a new sequence goes, and how much of its prompt is there already.

The KV cache is a row of slots, each of which remembers what its last sequence left. A prompt takes the idle slot that
begins like it; if another slot, even a busy one, begins so much more like it that copying pays, that one is copied. A
prompt that begins like one that is being evaluated right now waits until it can be copied: what several have in common
is evaluated once, also when they arrive together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

COPY_GAIN = 32
"""Tokens that a copy must save: less is evaluated sooner than copied."""
_COPY_COST = 1 / 64
"""Tokens that could be evaluated while one is copied; a slot is copied whole."""
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

    prompt: Sequence[int]
    evaluated: int
    """Tokens that can be copied already."""
    salt: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a prompt goes."""

    slot: int
    reused: int
    """Leading tokens that need no evaluation."""
    copied_from: int | None = None
    """The slot to copy first."""


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
    own = max(idle, key=lambda content: (common[content.slot], -content.used))
    best = max(contents, key=lambda content: common[content.slot])
    oldest = min(idle, key=lambda content: content.used)
    if _worth_keeping(own, common[own.slot]) and oldest is not own:
        # taking this slot would cost another conversation more than it saves here
        if common[own.slot] >= COPY_GAIN:
            return Place(oldest.slot, common[own.slot], own.slot)
        own = oldest
    gain = common[best.slot] - common[own.slot]
    if gain >= max(COPY_GAIN, len(best.tokens) * _COPY_COST) and best.slot != own.slot:
        return Place(own.slot, common[best.slot], best.slot)
    return Place(own.slot, common[own.slot])


def waits(prompt: Sequence[int], salt: str, contents: Sequence[Content], coming: Sequence[Coming]) -> bool:
    """Say whether a prompt should wait for one that is being evaluated and begins like it."""
    most = max(len(prompt) - 1, 0)
    shared = [
        common
        for each in coming
        if each.salt == salt and each.evaluated < (common := min(common_length(each.prompt, prompt), most))
    ]
    if not shared:
        return False
    present = max((common_length(content.tokens, prompt) for content in contents if content.salt == salt), default=0)
    return max(shared) - present >= COPY_GAIN


def _worth_keeping(content: Content, common: int) -> bool:
    """Say whether most of what a slot holds would be lost to a prompt that shares only this much with it."""
    return len(content.tokens) - common > max(COPY_GAIN, common)
