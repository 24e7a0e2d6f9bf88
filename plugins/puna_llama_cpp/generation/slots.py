"""The slots of the KV cache: one running sequence each, or the tokens that the last sequence left for reuse.

`prefix_cache` decides, this module carries out. Everything here runs on the decode thread.
"""

import itertools
import logging
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from puna_ggml_kernels.loader import SHORTEST_PREFILL
from puna_llama_cpp.binding.context import Context
from puna_llama_cpp.generation import prefix_cache
from puna_llama_cpp.generation.sequence import Sequence
from puna_llama_cpp.kv_store.cache import DiskCache, RestoredState, SlotContent

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Slot:
    """A place for one sequence in the cache."""

    index: int
    sequence: Sequence | None = None
    cached_tokens: list[int] = field(default_factory=list)
    """The tokens that the last sequence left."""
    end_position: int = 0
    """The position behind them, which images make different from their number."""
    generated: int = 0
    """How many of the last cached tokens the model wrote."""
    salt: str = ""
    last_used: int = 0
    shortest_cut: int = 0
    """How many tokens must stay at a truncation, if it was copied or restored from what had lost its beginning."""

    @property
    def prefix(self) -> prefix_cache.CachedPrefix:
        """The tokens that another sequence may reuse."""
        tokens = self.sequence.reusable_tokens if self.sequence else self.cached_tokens
        return prefix_cache.CachedPrefix(
            self.index, tokens, self.sequence is None, self.last_used, self.salt, generated=self.generated
        )

    @property
    def length(self) -> int:
        """The number of tokens in the cache."""
        return self.sequence.evaluated if self.sequence else len(self.cached_tokens)


class Slots:
    """Places sequences in slots."""

    def __init__(self, context: Context, count: int, disk: DiskCache | None = None) -> None:
        """Start with empty slots. `disk` keeps what leaves them."""
        self._context, self._disk = context, disk
        self._slots = [Slot(index) for index in range(count)]
        # Kept beside the slots, since each step asks for it several times. `schedule.plan` relies on its order.
        self._running: list[Sequence] = []
        self._clock = itertools.count(1)
        self._shared_ends: dict[int, int] = {}
        """By slot: the index up to which other prompts wait for this slot's prefill."""

    @property
    def running(self) -> list[Sequence]:
        """The sequences that have a slot, in the order in which they were placed."""
        # A copy, since the caller may release sequences while it iterates.
        return self._running.copy()

    @property
    def busy(self) -> bool:
        """Whether any sequence has a slot."""
        return bool(self._running)

    @property
    def idle_count(self) -> int:
        """The number of slots without a sequence."""
        return len(self._slots) - len(self._running)

    def token_counts(self) -> tuple[int, int]:
        """Return the tokens of running sequences, and those that earlier ones left. May be called from any thread."""
        active = cached = 0
        for slot in self._slots:
            # Read once: the decode thread may change it meanwhile.
            if (sequence := slot.sequence) is not None:
                active += sequence.evaluated
            else:
                cached += len(slot.cached_tokens)
        return active, cached

    def contents(self) -> list[SlotContent]:
        """Return what the idle slots hold."""
        return [
            SlotContent(slot.index, slot.cached_tokens, slot.salt, slot.last_used)
            for slot in self._slots
            if slot.sequence is None and slot.cached_tokens
        ]

    def common_length(self, tokens: list[int], salt: str) -> int:
        """Return how much of a prompt the slots hold or are about to hold. May be called from any thread."""
        longest = 0
        for slot in self._slots:
            # Read once: the decode thread may change it meanwhile.
            sequence = slot.sequence
            held = slot.cached_tokens if sequence is None else sequence.tokens[: sequence.reusable_limit]
            if slot.salt == salt:
                common = prefix_cache.common_length(held, tokens)
                whole = self._context.supports_partial_removal or common == len(held)
                longest = max(longest, common if whole and common >= slot.shortest_cut else 0)
        return longest

    def admit(self, waiting: list[Sequence], prefill_tokens: int, copy_seconds: float = math.inf) -> list[Sequence]:
        """Place waiting sequences, given in order of priority, and return the others.

        None is placed once copies have taken `copy_seconds`, but for the first: the streams wait for copies.
        A sequence that would get none of the next step's `prefill_tokens` is not placed: its idle slot would only
        break the contiguous row of running sequences. A prompt that shares its beginning with a prefill under way waits
        for it, unless the prefill has a lower priority.
        """
        remaining = []
        # Recomputed in each step: a prompt that waited may be cancelled, and no prefill may stop for a prompt that is
        # gone.
        self._shared_ends.clear()
        until = time.perf_counter() + copy_seconds
        placed = 0
        for index, sequence in enumerate(waiting):
            late = placed and time.perf_counter() > until
            if late or not self.idle_count or self._pending_before(sequence) >= prefill_tokens:
                remaining += waiting[index:]  # no later one has a higher priority
                break
            if self._waits_for_prefill(sequence):
                remaining.append(sequence)
            else:
                self._place(sequence)
                placed += 1
        # The saved state is that of this moment. The next batch changes the sequence that it was copied from.
        self._context.forget_copy()
        return remaining

    def _pending_before(self, sequence: Sequence) -> int:
        """Return how many prompt tokens are scheduled before the tokens of a sequence."""
        priority = sequence.request.priority
        prompts = (other for other in self.running if not other.generating and other.request.priority >= priority)
        return sum(other.pending for other in prompts)

    def _waits_for_prefill(self, sequence: Sequence) -> bool:
        request = sequence.request
        in_flight = [
            prefix_cache.InFlightPrefill(other.slot, other.tokens, len(other.reusable_tokens), other.request.cache_salt)
            for other in self.running
            if not other.generating and other.request.priority >= request.priority
        ]
        # A waiting prompt is served by a copy that is cut behind the common part, and a recurrent state cannot be cut.
        if not in_flight or not self._context.supports_partial_removal:
            return False
        prefixes = self._prefixes(sequence)
        wait = prefix_cache.prefill_to_wait_for(
            sequence.tokens, request.cache_salt, prefixes, in_flight, sequence.reusable_length
        )
        restored = sequence.restored.length if sequence.restored else 0
        if wait is None or wait.shared - restored < prefix_cache.MIN_COPY_GAIN:
            return False
        # Where a copy cannot be cut, the prefill stops at the first end, and later at the others.
        chosen = min if self._context.shortest_cut(wait.shared) else max
        self._shared_ends[wait.slot] = chosen(wait.shared, self._shared_ends.get(wait.slot, wait.shared))
        # What the cache held at the first look decides where the prompt would begin alone, and so which bits it must
        # get. Later steps may lower this number but never raise it.
        sequence.initially_cached = min(sequence.initially_cached, wait.cached)
        return True

    def prefill_end(self, sequence: Sequence) -> int:
        """Return the index up to which a sequence is evaluated now: the end of a part that others wait for, or its end.

        A rest that is too short to be evaluated as prefill stays with the part before it. On its own it would get
        other bits than as a part of the whole prompt.
        """
        # The prompt stops at the end of the common part, so that all the ends behind it go through the weights
        # together.
        end = self._shared_ends.get(sequence.slot, 0)
        length = len(sequence.tokens)
        return end if sequence.evaluated < end <= length - SHORTEST_PREFILL else length

    def _prefixes(self, sequence: Sequence) -> list[prefix_cache.CachedPrefix]:
        """Return the prefixes that a sequence might reuse. Memory without partial removal is reusable as a whole."""
        return [self._usable(slot, slot.prefix, sequence) for slot in self._slots]

    def _usable(self, slot: Slot, prefix: prefix_cache.CachedPrefix, sequence: Sequence) -> prefix_cache.CachedPrefix:
        context = self._context
        shortest = context.shortest_cut(slot.length)
        if not shortest and not slot.shortest_cut:
            return prefix
        common = min(prefix_cache.common_length(prefix.tokens, sequence.tokens), sequence.reusable_length)
        whole = context.supports_partial_removal or common == len(prefix.tokens)
        # A busy slot can only be copied.
        if not whole or common < (slot.shortest_cut if prefix.idle else shortest):
            return replace(prefix, tokens=(), copied=False)
        return replace(prefix, copied=common >= shortest)

    def _place(self, sequence: Sequence) -> None:
        salt = sequence.request.cache_salt
        placement = prefix_cache.choose_slot(sequence.tokens, salt, self._prefixes(sequence), sequence.reusable_length)
        assert placement is not None, "admitted without an idle slot"
        slot = self._slots[placement.slot]
        # The order is essential: the move saves the slot's content before the copy overwrites it, and the truncation at
        # the end removes the tokens that the new prompt does not share.
        restored = self._restored(sequence, placement.reused)
        source = None if placement.copied_from is None or restored is not None else self._slots[placement.copied_from]
        cut = self._copied_cut(source) if source else 0
        if source is not None and source.index == placement.moved_to:
            copied, moved = self._context.exchange(slot.index, source.index)
            self._hand_over(slot, source, moved=moved)
        else:
            in_place = placement.reused if source is None and restored is None else 0
            self._make_room(slot, placement.moved_to, in_place)
            copied = source is not None and self._context.copy(source.index, slot.index)
            if source is not None and copied and placement.vacated:
                self._empty(source)
        reused = placement.reused
        if restored is not None:
            reused = restored.length if self._context.set_state(placement.slot, restored.state) else 0
            # The state may have one token more.
            slot.shortest_cut = min(self._context.shortest_cut(restored.length + 1), reused)
            if not reused:
                restored.reject()
        elif source is not None:
            slot.shortest_cut = cut
            reused = reused if copied else 0
        if not reused:
            slot.shortest_cut = 0
        sequence.slot = placement.slot
        sequence.start(placement.slot, self.truncate(sequence, reused))
        slot.sequence, slot.salt, slot.last_used = sequence, salt, next(self._clock)
        self._running.append(sequence)
        self._tell_disk()
        log.debug("slot %d takes %d tokens, %d cached", placement.slot, len(sequence.tokens), sequence.evaluated)

    def _make_room(self, slot: Slot, moved_to: int | None, kept: int) -> None:
        """Save what an idle slot holds, and what is lost where its content moves to. `kept`: tokens that stay."""
        if moved_to is None:
            self._save(slot, kept)
            return
        other = self._slots[moved_to]
        self._save(other, 0)
        self._hand_over(slot, other, moved=self._context.copy(slot.index, moved_to))

    def _hand_over(self, slot: Slot, other: Slot, *, moved: bool) -> None:
        """Note that a slot's content has moved to another one, or that both are lost."""
        other.cached_tokens, other.end_position = (slot.cached_tokens, slot.end_position) if moved else ([], 0)
        other.shortest_cut = self._copied_cut(slot)
        other.generated, other.salt, other.last_used = slot.generated, slot.salt, slot.last_used

    def _empty(self, slot: Slot) -> None:
        """Empty an idle slot whose content was copied, unless the copy cannot be cut where the content can."""
        if not self._copied_cut(slot):
            self._context.truncate(slot.index, 0)
            slot.cached_tokens, slot.end_position, slot.generated, slot.last_used = [], 0, 0, 0

    def _copied_cut(self, source: Slot) -> int:
        return max(source.shortest_cut, self._context.shortest_cut(source.length))

    def _restored(self, sequence: Sequence, cached: int) -> RestoredState | None:
        """Take the stored state off a sequence. Return it if it saves enough beyond what memory has."""
        restored, sequence.restored = sequence.restored, None
        return restored if restored and restored.length - cached >= prefix_cache.MIN_COPY_GAIN else None

    def _save(self, slot: Slot, kept: int) -> None:
        """Save the tokens of an idle slot before they are overwritten, unless all but a few are `kept`."""
        if self._disk is not None and len(slot.cached_tokens) - kept >= prefix_cache.MIN_COPY_GAIN:
            self._disk.save(SlotContent(slot.index, slot.cached_tokens, slot.salt, slot.last_used))

    def truncate(self, sequence: Sequence, index: int) -> int:
        """Remove a sequence's cache from an index on, or from the beginning of the image there.

        Return the index at which the cache ends now: 0 if llama.cpp could not remove a part.
        """
        index = sequence.images.align_down(index)
        position = sequence.images.position(index)
        return index if self._context.truncate(sequence.slot, position) == position else 0

    def undo(self, sequence: Sequence) -> int:
        """Remove what an aborted batch added to a sequence. Return the index at which its cache ends now, or 0."""
        index = sequence.images.align_down(sequence.evaluated)
        position = sequence.images.position(index)
        return index if self._context.undo(sequence.slot, position) == position else 0

    def reject(self, sequence: Sequence) -> None:
        """Remove the draft tokens of a sequence that were not accepted."""
        if sequence.unaccepted:
            sequence.unaccepted = 0
            position = sequence.images.position(sequence.evaluated)
            if self._context.reject(sequence.slot, position) != position:
                sequence.evaluated = 0

    def release(self, sequence: Sequence) -> None:
        """Free a sequence's slot, which keeps the tokens for reuse."""
        slot = self._slots[sequence.slot]
        self.reject(sequence)
        tokens = sequence.reusable_tokens
        # After a context shift less may be reusable than the slot can be truncated to.
        slot.cached_tokens = tokens if len(tokens) >= slot.shortest_cut else []
        slot.generated = max(len(slot.cached_tokens) - sequence.prompt_length, 0)
        slot.sequence, slot.last_used = None, next(self._clock)
        self._running.remove(sequence)
        self._shared_ends.pop(slot.index, None)
        if self._context.supports_partial_removal:
            # After a context shift the cells behind the reusable tokens were computed from tokens that are gone. A
            # recurrent model would lose its whole state here, so it is not asked.
            self.truncate(sequence, len(slot.cached_tokens))
        slot.end_position = sequence.images.position(len(slot.cached_tokens))
        self._tell_disk()
        if self._disk is not None:
            self._disk.expect(slot.index, len(slot.cached_tokens))

    def _tell_disk(self) -> None:
        if self._disk is not None:
            self._disk.writer.busy = self.busy

    def padding(self, busy: Iterable[int]) -> dict[int, int]:
        """Return the idle slots that make a row of busy slots contiguous, each with the position of a padding token.

        The padding token is to be removed again, so memory that cannot be truncated gets none.
        """
        if not self._context.supports_partial_removal:
            return {}
        between = (self._slots[index] for index in prefix_cache.padding_slots(sorted(busy)))
        # The padding token goes behind the cached tokens, so removing it leaves them intact. A full slot has no cell
        # for it.
        length = self._context.length
        return {
            slot.index: slot.end_position for slot in between if not slot.sequence and slot.end_position + 1 < length
        }
