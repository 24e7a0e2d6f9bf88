"""The KV cache as a row of slots: one sequence each, or what the last one left for those who begin like it."""

import itertools
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from puna_ggml_kernels.loader import SHORTEST_PREFILL
from puna_llama_cpp.binding.context import Context
from puna_llama_cpp.generation import prefix_cache
from puna_llama_cpp.generation.sequence import Sequence

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Slot:
    """A place for one sequence in the cache."""

    index: int
    sequence: Sequence | None = None
    left: list[int] = field(default_factory=list)
    """What the last sequence left."""
    end: int = 0
    """Position after that."""
    salt: str = ""
    used: int = 0

    @property
    def content(self) -> prefix_cache.Content:
        """What another sequence may take over."""
        tokens = self.sequence.content if self.sequence else self.left
        return prefix_cache.Content(self.index, tokens, self.sequence is None, self.used, self.salt)


class Slots:
    """Gives sequences their places. Lives on the decode thread."""

    def __init__(self, context: Context, count: int) -> None:
        """Begin with empty ones."""
        self._context = context
        self._slots = [Slot(index) for index in range(count)]
        self._clock = itertools.count(1)
        self._stops: dict[int, int] = {}
        """Up to where others wait for the prompts in these slots."""

    @property
    def running(self) -> list[Sequence]:
        """Sequences that have a slot, in the order in which they came."""
        busy = sorted((slot for slot in self._slots if slot.sequence), key=lambda slot: slot.used)
        return [slot.sequence for slot in busy if slot.sequence]

    @property
    def busy(self) -> bool:
        """Whether any sequence has a slot."""
        return any(slot.sequence for slot in self._slots)

    @property
    def idle(self) -> int:
        """How many slots no sequence has."""
        return sum(slot.sequence is None for slot in self._slots)

    def admit(self, waiting: list[Sequence], room: int) -> list[Sequence]:
        """Give slots to those who come first, the most urgent before others, and return the rest.

        A step has room for so many tokens of prompts: who would get none of it waits, since a slot without work comes
        between its neighbours. Somebody whose prompt begins like one that is being evaluated waits for it, unless that
        is less urgent.
        """
        left = []
        self._stops.clear()
        for index, sequence in enumerate(waiting):
            if not self.idle or self._ahead(sequence) >= room:
                left += waiting[index:]  # none of whom is more urgent
                break
            if self._waits(sequence):
                left.append(sequence)
            else:
                self._place(sequence)
        self._context.end_copying()
        return left

    def _ahead(self, sequence: Sequence) -> int:
        """Return how many tokens of prompts are to be evaluated before a sequence's."""
        priority = sequence.request.priority
        prompts = (other for other in self.running if not other.begun and other.request.priority >= priority)
        return sum(other.pending for other in prompts)

    def _waits(self, sequence: Sequence) -> bool:
        request = sequence.request
        coming = [
            prefix_cache.Coming(other.slot, other.tokens, len(other.content), other.request.cache_salt)
            for other in self.running
            if not other.begun and other.request.priority >= request.priority
        ]
        if not coming or not self._context.can_rewind:
            return False
        wait = prefix_cache.wait(sequence.tokens, request.cache_salt, self._contents(sequence), coming)
        if wait is None:
            return False
        self._stops[wait.slot] = max(wait.shared, self._stops.get(wait.slot, 0))
        sequence.first = min(sequence.first, wait.present)
        return True

    def stop(self, sequence: Sequence) -> int:
        """Return up to where a prompt is to be evaluated for now: others wait for what they have in common with it.

        Not for a rest too short to have, apart from what is before it, the bits that it would have with it.
        """
        stop = self._stops.get(sequence.slot, 0)
        length = len(sequence.tokens)
        return stop if sequence.evaluated < stop <= length - SHORTEST_PREFILL else length

    def _contents(self, sequence: Sequence) -> list[prefix_cache.Content]:
        """Return what a sequence might take over: all or nothing of a memory that cannot be taken back."""
        contents = [slot.content for slot in self._slots]
        if self._context.can_rewind:
            return contents
        return [
            content if sequence.tokens[: len(content.tokens)] == content.tokens else replace(content, tokens=())
            for content in contents
        ]

    def _place(self, sequence: Sequence) -> None:
        """Give a sequence the slot that knows most of its prompt."""
        place = prefix_cache.place(sequence.tokens, sequence.request.cache_salt, self._contents(sequence))
        assert place is not None, "admitted without an idle slot"
        slot = self._slots[place.slot]
        if place.moved_to is not None:
            other = self._slots[place.moved_to]
            moved = self._context.copy(place.slot, place.moved_to)
            other.left, other.end = (slot.left, slot.end) if moved else ([], 0)
            other.salt, other.used = slot.salt, slot.used
        reused = place.reused
        if place.copied_from is not None and not self._context.copy(place.copied_from, place.slot):
            reused = 0
        sequence.slot = place.slot
        sequence.start(place.slot, self.rewind(sequence, reused))
        slot.sequence, slot.salt, slot.used = sequence, sequence.request.cache_salt, next(self._clock)
        log.debug("slot %d takes %d tokens, %d cached", place.slot, len(sequence.tokens), sequence.evaluated)

    def rewind(self, sequence: Sequence, index: int) -> int:
        """Take a sequence's memory back to an index, or to the picture that is there, and return where it stands."""
        index = sequence.pictures.floor(index)
        position = sequence.pictures.position(index)
        return index if self._context.rewind(sequence.slot, position) == position else 0

    def release(self, sequence: Sequence) -> None:
        """Take a sequence off its slot, which keeps its tokens for who begins like it."""
        slot = self._slots[sequence.slot]
        slot.left, slot.sequence, slot.used = sequence.content, None, next(self._clock)
        self._stops.pop(slot.index, None)
        if self._context.can_rewind:
            self.rewind(sequence, len(slot.left))
        slot.end = sequence.pictures.position(len(slot.left))

    def fillers(self, busy: Iterable[int]) -> dict[int, int]:
        """Return idle slots to be evaluated along with busy ones, each with the position of the token that does it."""
        if not self._context.can_rewind:
            return {}
        between = (self._slots[index] for index in prefix_cache.gaps(sorted(busy)))
        return {slot.index: slot.end for slot in between if not slot.sequence and slot.end + 1 < self._context.length}
