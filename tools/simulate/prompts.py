"""Prompts as paths in a tree, and the prefix cache of one replica.

Theory. A prompt is a chain of parts: a system prompt, a document, a message, an answer. Two prompts share a beginning
exactly as far as their chains are the same, so a prompt is a node of a tree, and its beginnings are the node's
ancestors. The prefix cache is a row of slots, as in a real host. A slot holds one chain: that of its running sequence,
or that of the last one, until another sequence takes the slot. `puna_llama_cpp.generation.prefix_cache` decides which
slot a prompt takes, what is copied and what is overwritten.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from puna_llama_cpp.generation.prefix_cache import CachedPrefix, place


class Prompt:
    """The beginning of a prompt up to the end of one part."""

    __slots__ = ("_children", "parent", "tokens")

    def __init__(self, tokens: int = 0, parent: "Prompt | None" = None) -> None:
        self.tokens = tokens
        """Tokens of this part and all parts before it."""
        self.parent = parent
        self._children: dict[object, Prompt] = {}

    def then(self, name: object, tokens: int) -> "Prompt":
        """Return the prompt that goes on with a part of a name; equal names are equal texts."""
        known = self._children.get(name)
        if known is None:
            known = self._children[name] = Prompt(self.tokens + tokens, self)
        return known

    def unique(self, tokens: int) -> "Prompt":
        """Return the prompt that goes on with a part that occurs nowhere else."""
        return Prompt(self.tokens + tokens, self)


@dataclass(frozen=True, slots=True)
class Taken:
    """A slot for a prompt."""

    slot: int
    reused: int
    """Leading tokens that need no evaluation."""
    copied: int
    """Tokens that are copied from slot to slot before the prompt begins."""


@dataclass(slots=True, eq=False)
class _Slot:
    """A place for one sequence."""

    held: Prompt
    prompted: int = 0
    """Tokens of what it holds that came as a prompt."""
    idle: bool = True
    last_used: int = 0


class PrefixCache:
    """The slots of a replica, and the prompts whose KV cache they hold."""

    def __init__(self, slots: int, on_change: Callable[[Prompt, bool], None] | None = None) -> None:
        """`on_change` is told of each beginning that the cache gains (True) or loses (False)."""
        self._on_change = on_change or (lambda _prompt, _gained: None)
        self._slots = [_Slot(Prompt()) for _ in range(slots)]
        self._holders: Counter[Prompt] = Counter()
        """The number of slots that hold a beginning."""
        self._clock = itertools.count(1)

    def match(self, prompt: Prompt) -> int:
        """Return the number of leading tokens that a slot holds."""
        return next((node.tokens for node in _beginnings(prompt) if node in self._holders), 0)

    def take(self, prompt: Prompt) -> Taken | None:
        """Place a prompt in an idle slot. None: no slot is idle."""
        own = set(_beginnings(prompt))
        common, prefixes = {}, []
        for index, slot in enumerate(self._slots):
            shared = next((node.tokens for node in _beginnings(slot.held) if node in own), 0)
            common[index] = min(shared, prompt.tokens - 1)
            # Nothing but the length of a slot's tokens matters here.
            held = range(slot.held.tokens)
            generated = len(held) - slot.prompted
            prefixes.append(CachedPrefix(index, held, slot.idle, slot.last_used, generated=generated))
        placement = place(common, prefixes)
        if placement is None:
            return None
        taken, copied = self._slots[placement.slot], 0
        if placement.copied_from is not None:
            copied += self._slots[placement.copied_from].held.tokens
        if placement.moved_to is not None:
            other = self._slots[placement.moved_to]
            copied += taken.held.tokens
            other.last_used, other.prompted = taken.last_used, taken.prompted
            self._hold(other, taken.held)
        taken.idle, taken.prompted = False, prompt.tokens
        self._hold(taken, prompt)
        if placement.vacated and placement.moved_to is None and placement.copied_from is not None:
            other = self._slots[placement.copied_from]
            other.last_used = other.prompted = 0
            self._hold(other, Prompt())
        taken.last_used = next(self._clock)
        return Taken(placement.slot, placement.reused, copied)

    def leave(self, index: int, prompt: Prompt) -> None:
        """Free a slot, which keeps a prompt with its answer."""
        slot = self._slots[index]
        slot.idle, slot.last_used = True, next(self._clock)
        self._hold(slot, prompt)

    def clear(self) -> None:
        """Forget everything."""
        for slot in self._slots:
            slot.prompted = 0
            self._hold(slot, Prompt())

    def _hold(self, slot: _Slot, prompt: Prompt) -> None:
        before, slot.held = slot.held, prompt
        # What both hold must not be lost in between.
        for node in _beginnings(prompt):
            self._holders[node] += 1
            if self._holders[node] == 1:
                self._on_change(node, True)
        for node in _beginnings(before):
            self._holders[node] -= 1
            if not self._holders[node]:
                del self._holders[node]
                self._on_change(node, False)


def _beginnings(prompt: Prompt) -> Iterator[Prompt]:
    """Yield a prompt and its beginnings, the longest first, without the empty one."""
    node = prompt
    while node.parent is not None:
        yield node
        node = node.parent
