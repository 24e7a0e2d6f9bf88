"""The prefix cache: which slot a new sequence takes, and how much of its prompt the KV cache holds already.

The KV cache is a row of slots. A slot serves one sequence at a time, and keeps the keys and values of its last sequence
until another sequence takes it. A slot's prefix is reusable if it begins with the same tokens under the same cache
salt, since keys and values depend on nothing but the tokens before them. A prompt is placed in this order:

1. While nothing runs, the prompt takes the idle slot whose tokens share the longest prefix with it, unless the slot
   holds another chat (`_holds_another_chat`). It then takes the slot that was used least recently.
2. While other sequences run, the prompt takes an idle slot next to them. llama.cpp evaluates the sequences of a batch
   in one pass over the weights if their ids are contiguous, and in one pass for each contiguous run otherwise.
3. If another slot, even a busy one, shares so much more that copying pays, its prefix is copied into the chosen slot.
   An idle one that held the prompt's own chat is empty then.
4. If the chosen slot holds another chat, its tokens are first moved to the slot that step 3 leaves empty, or else to
   the least recently used idle slot.

Chats that share a long system prompt differ in few tokens, and each of them is worth its slot. A chat that goes on does
not always repeat the last answer: an answer is written anew, or comes back without its thinking. So a slot that differs
from the prompt only in tokens that the model wrote most likely holds the prompt's own chat, and gives way.

A prompt that shares its beginning with a prompt in prefill waits (`prefill_to_wait_for`) until that part is evaluated
and can be copied. So a common beginning is evaluated once, also for prompts that arrive together. The prompt that the
others wait for stops at the end of the common part, so that all the ends are evaluated together.

Invariant: at least one token of a prompt is left to evaluate, since its logits are needed to sample the first token.
All functions here are pure; `slots` carries the decisions out.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MIN_COPY_GAIN = 32
"""Tokens that a copy must save. Evaluating fewer takes less time than copying them."""
_COPY_COST = 1 / 64
"""Tokens that could be evaluated in the time that copying one takes. A copy always copies the whole slot."""
MAX_PADDING_GAP = 2
"""Idle slots between busy ones that are evaluated along. One token for each takes less time than another pass."""
_TEMPLATE_TOKENS = 8
"""Tokens at the end of a prompt that may be missing when the answer comes back, such as the beginning of a thought."""
_AGING = 4
"""Tokens of the content that was used least recently that are given for one token of newer content."""
_COMPARED_TOKENS = 64
"""Tokens that are compared as one slice: much faster than one by one in Python."""


@dataclass(frozen=True, slots=True)
class CachedPrefix:
    """The reusable tokens of one slot."""

    slot: int
    tokens: Sequence[int]
    """Tokens whose keys and values are in the cache and depend on nothing but the tokens before them."""
    idle: bool
    last_used: int
    """A clock value of the slot's last use; a larger one is later."""
    salt: str = ""
    copied: bool = True
    """Whether a copy of the tokens can be cut behind the part that the prompt shares."""
    generated: int = 0
    """How many of the last tokens the model wrote."""


@dataclass(frozen=True, slots=True)
class InFlightPrefill:
    """A prompt that is being evaluated."""

    slot: int
    prompt: Sequence[int]
    evaluated: int
    """Leading tokens that can be copied already."""
    salt: str = ""


@dataclass(frozen=True, slots=True)
class PrefixWait:
    """The decision that a prompt waits for another prompt's prefill."""

    slot: int
    """The slot of the prompt in prefill."""
    shared: int
    """Leading tokens that the two prompts have in common."""
    cached: int
    """Leading tokens of the waiting prompt that some slot holds now."""


@dataclass(frozen=True, slots=True)
class Placement:
    """The slot for a prompt, and the copies that must be made before it starts."""

    slot: int
    reused: int
    """Leading tokens that need no evaluation."""
    copied_from: int | None = None
    """The slot whose cache is copied into this one, after the move."""
    moved_to: int | None = None
    """The slot to which this slot's present content is copied first. If it is `copied_from`, the two are exchanged."""
    vacated: bool = False
    """True if `copied_from` holds the prompt's own chat, and keeps nothing of worth after the copy."""


def common_length(left: Sequence[int], right: Sequence[int]) -> int:
    """Return how many leading tokens are equal."""
    end = min(len(left), len(right))
    for start in range(0, end, _COMPARED_TOKENS):
        if left[start : start + _COMPARED_TOKENS] != right[start : start + _COMPARED_TOKENS]:
            # Only the first unequal slice is compared token by token.
            while start < end and left[start] == right[start]:
                start += 1
            return start
    return end


def choose_slot(
    prompt: Sequence[int], salt: str, prefixes: Sequence[CachedPrefix], reusable: int | None = None
) -> Placement | None:
    """Choose a slot for a prompt, given what every slot holds. None: no slot is idle.

    `reusable`: how many leading tokens may be taken from the cache; None: all but the last one.
    """
    max_reused = max(len(prompt) - 1, 0) if reusable is None else reusable
    # A shared prefix shows in the time to the first token. Requests with different salts must not learn of each other.
    common = {
        prefix.slot: min(common_length(prefix.tokens, prompt), max_reused) if prefix.salt == salt else 0
        for prefix in prefixes
    }
    return place(common, prefixes)


def place(common: Mapping[int, int], prefixes: Sequence[CachedPrefix]) -> Placement | None:
    """Choose a slot for a prompt that has `common` leading tokens in common with each slot. None: no slot is idle."""
    idle = [prefix for prefix in prefixes if prefix.idle]
    if not idle:
        return None
    # Among equals an idle slot comes first, since its content can be used in place, without a copy.
    best = max(prefixes, key=lambda prefix: (common[prefix.slot], prefix.idle, -prefix.last_used))
    oldest = min(idle, key=lambda prefix: prefix.last_used)
    if len(idle) < len(prefixes):
        own = _nearest_to_busy(idle, [prefix.slot for prefix in prefixes if not prefix.idle], common)
    elif best.copied and _holds_another_chat(best, common[best.slot]) and _outweighs(best, oldest, common):
        own = oldest
    else:
        own = best
    gain = common[best.slot] - common[own.slot]
    copied = best.copied and gain >= max(MIN_COPY_GAIN, len(best.tokens) * _COPY_COST)
    # The prompt's own chat leaves its slot.
    vacated = copied and best.idle and not _holds_another_chat(best, common[best.slot])
    moved_to = None
    if _holds_another_chat(own, common[own.slot]):
        # A move must not destroy content that is newer than the content that it saves, nor the source of the copy.
        older = oldest.last_used < own.last_used and not (copied and oldest is best)
        if vacated:
            moved_to = best.slot
        elif older and _outweighs(own, oldest, common):
            moved_to = oldest.slot
    return Placement(
        slot=own.slot,
        reused=common[best.slot if copied else own.slot],
        copied_from=best.slot if copied else None,
        moved_to=moved_to,
        vacated=vacated,
    )


def _nearest_to_busy(idle: Sequence[CachedPrefix], busy: Sequence[int], common: Mapping[int, int]) -> CachedPrefix:
    """Return the idle slot nearest to a busy one. Among equals the longest shared prefix wins, then the oldest slot."""

    def order(prefix: CachedPrefix) -> tuple[int, int, int]:
        # Nearness comes first, since it decides how many passes over the weights every later step takes.
        distance = min(abs(prefix.slot - slot) for slot in busy)
        return distance, -common[prefix.slot], prefix.last_used

    return min(idle, key=order)


def padding_slots(slots: Sequence[int]) -> list[int]:
    """Return the slots missing from an ascending row whose padding costs less than another pass over the weights."""
    return [
        slot
        for left, right in itertools.pairwise(slots)
        if right - left - 1 <= MAX_PADDING_GAP
        for slot in range(left + 1, right)
    ]


def prefill_to_wait_for(
    prompt: Sequence[int],
    salt: str,
    prefixes: Sequence[CachedPrefix],
    in_flight: Sequence[InFlightPrefill],
    reusable: int | None = None,
) -> PrefixWait | None:
    """Return the running prefill that a prompt should wait for. None: waiting would not save MIN_COPY_GAIN tokens.

    `reusable`: see choose_slot.
    """
    max_shared = max(len(prompt) - 1, 0) if reusable is None else reusable
    # Prompts whose common part is evaluated already are left out: it can be copied from them at once.
    ahead = [
        (common, prefill.slot)
        for prefill in in_flight
        if prefill.salt == salt
        and prefill.evaluated < (common := min(common_length(prefill.prompt, prompt), max_shared))
    ]
    if not ahead:
        return None
    shared, slot = max(ahead, key=lambda pair: pair[0])
    # Tokens that some slot holds already need no waiting, so only the tokens beyond them count as saved.
    cached = max((common_length(prefix.tokens, prompt) for prefix in prefixes if prefix.salt == salt), default=0)
    return PrefixWait(slot, shared, cached) if shared - cached >= MIN_COPY_GAIN else None


def _loses_most(prefix: CachedPrefix, shared: int) -> bool:
    """Return whether a prompt that takes a slot would share less of its tokens than it destroys."""
    return len(prefix.tokens) - shared > max(MIN_COPY_GAIN, shared)


def _holds_another_chat(prefix: CachedPrefix, shared: int) -> bool:
    """Return whether a slot's tokens beyond those that a prompt shares are worth a copy."""
    if _loses_most(prefix, shared):
        return True
    lost = len(prefix.tokens) - shared
    return lost - prefix.generated >= _TEMPLATE_TOKENS and lost >= max(MIN_COPY_GAIN, len(prefix.tokens) * _COPY_COST)


def _outweighs(prefix: CachedPrefix, oldest: CachedPrefix, common: Mapping[int, int]) -> bool:
    """Return whether losing what the oldest slot holds is better than losing what another one holds."""
    lost, instead = (len(each.tokens) - common[each.slot] for each in (prefix, oldest))
    return _loses_most(prefix, common[prefix.slot]) or lost * _AGING >= instead
