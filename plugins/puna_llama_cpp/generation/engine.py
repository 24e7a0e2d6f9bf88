"""Continuous batching: the step loop of a model that generates text.

Each model has one decode thread, which repeats one step while there is work:

1. Admit. Cancelled sequences leave their slots. Waiting sequences take idle slots, by priority and then in order of
   arrival, as long as the step has room for some of their prompt (`slots`).
2. Shift. A sequence whose context is full drops half of the tokens behind its kept ones, or ends.
3. Images. If an image is next in some sequence, its vectors are evaluated in a batch of their own, since llama.cpp
   takes tokens or vectors in one batch, not both.
4. Tokens. `schedule.plan` divides the batch: one token for each decoding sequence, the rest for prompts. `BatchBuilder`
   adds draft tokens and padding. Before the batch is decoded, the events of the last step are handed to the event
   loops, which work on them while llama.cpp computes without Python's lock.
5. Output. `OutputProcessor` samples a token for each sequence whose tokens are all evaluated.

Sequences join and leave between any two steps. The effect of a batch on a sequence can be undone at any time: a
sequence is a list of tokens and a count of evaluated ones (`sequence`).

Threads. `submit`, `cancel`, `step` and `close` may be called from any thread. `_lock` guards what those threads share
with the decode thread: the arrivals, the closed flag, each sequence's `cancelled`, the set of sequences in prefill, and
the abort flag of the context. All else belongs to the decode thread.

Cancellation. A decoding sequence that is cancelled leaves at the next step. A sequence in prefill would take long, so
`cancel` sets the abort flag, and llama.cpp ends the whole batch early. The other sequences lose that batch only: their
caches are truncated to where it began, and the next step repeats it. The race between the two threads is closed by the
lock: `_run` clears the abort flag and names the sequences in prefill in one critical section, after a last look at
which of them are cancelled.

Late masks. A constraint's mask comes from another process. A sequence whose mask was late once sits out every step that
begins before its mask has come, so that it delays no other sequence again.
"""

import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

from puna.backend import BackendError, KvCacheUsage
from puna_llama_cpp.binding.batch import VectorBatch
from puna_llama_cpp.binding.context import AbortedError, Context
from puna_llama_cpp.binding.vocabulary import Vocabulary
from puna_llama_cpp.generation import schedule
from puna_llama_cpp.generation.batch_builder import BatchBuilder, BatchEntry
from puna_llama_cpp.generation.output_processor import OutputProcessor
from puna_llama_cpp.generation.sequence import Sequence
from puna_llama_cpp.generation.slots import Slots
from puna_llama_cpp.generation.speculation import Speculator
from puna_llama_cpp.kv_store.cache import DiskCache
from puna_llama_cpp.step_thread import BatchedDelivery, StepThread, unloaded_error

_LATE_MASK_SECONDS = 0.001
"""How long a step waits for the mask of a sequence whose mask was late before."""
_IDLE_SECONDS = 0.005
"""Time between two steps while all sequences wait for late masks."""
_UNSHIFTED_TOKENS = 4
"""Tokens at the end of a full context that a shift never counts among the kept ones."""


class Engine:
    """Runs sequences on a context, many at once."""

    def __init__(
        self,
        context: Context,
        vocabulary: Vocabulary,
        slots: int,
        speculator: Speculator | None = None,
        disk: DiskCache | None = None,
    ) -> None:
        """Start the decode thread, which serves up to `slots` sequences at once.

        Without a speculator, no token is drafted. `disk` keeps what leaves the slots.
        """
        self._context, self._vocabulary = context, vocabulary
        self._disk, self._save_due, self._crashed = disk, False, False
        self._slots = Slots(context, slots, disk)
        self._delivery = BatchedDelivery()
        self._speculator = speculator
        self._builder = BatchBuilder(context, self._slots, speculator)
        self._output = OutputProcessor(context, vocabulary, self._slots, self._delivery, speculator)
        self._prefill_budget = schedule.PrefillBudget()
        self._lock = threading.Lock()
        self._arrived: deque[Sequence] = deque()
        self._waiting: list[Sequence] = []
        self._in_prefill: frozenset[Sequence] = frozenset()
        """Sequences of the running batch whose cancellation aborts it."""
        self._in_batch: list[Sequence] = []
        """All sequences of the running batch."""
        self._sitting_out: list[Sequence] = []
        """Sequences that have no part in this step, since their masks are late."""
        self._closed = False
        self._thread = StepThread("llama-decode", self._step, self._on_thread_end)
        self._thread.start()

    def submit(self, sequence: Sequence) -> None:
        """Queue a sequence of the running event loop. Raises BackendError if the model was unloaded."""
        with self._lock:
            if self._closed:
                raise unloaded_error()
            self._delivery.connect(sequence.results)
            self._arrived.append(sequence)
        self._thread.wake()

    def cancel(self, sequence: Sequence) -> None:
        """Ask the decode thread to drop a sequence. No effect after its end.

        Its prefill in progress is aborted, and so is a decoding step if it serves no other sequence.
        """
        with self._lock:
            sequence.cancelled = True
            if sequence in self._in_prefill or self._is_batch_cancelled():
                self._context.set_abort(True)
        self._thread.wake()

    def _is_batch_cancelled(self) -> bool:
        """Return whether all sequences of the running batch are cancelled, and it may be aborted."""
        # A state from which nothing can be removed would be lost with the step, and the next prompt may begin like it.
        removable = self._context.supports_partial_removal
        return removable and bool(self._in_batch) and all(each.cancelled for each in self._in_batch)

    def step(self) -> int | None:
        """Return the number of steps so far; None while there is no work."""
        step = self._thread.step()
        return None if step is None else step + self._context.turns_passed()

    def kv_cache_usage(self) -> KvCacheUsage:
        """Return how much of the KV cache is in use."""
        return KvCacheUsage(*self._slots.token_counts())

    def cached_length(self, tokens: list[int], salt: str) -> int:
        """Return how much of a prompt the KV cache holds, or is about to hold."""
        return self._slots.common_length(tokens, salt)

    def save(self) -> None:
        """Have the decode thread save the slots to the disk, as long as no sequence runs."""
        self._save_due = True
        self._thread.wake()

    def close(self) -> None:
        """Abort the running batch and wait for the decode thread to end. Sequences that are left get an error."""
        with self._lock:
            self._closed = True
            self._context.set_abort(True)
        self._thread.close()
        self._delivery.close()
        if self._disk is not None:
            # The decode thread has ended, so this one may use the context.
            self._disk.close([] if self._crashed else self._slots.contents())

    def _on_thread_end(self) -> None:
        # An error in the middle of a step: the cache may differ from what the slots say.
        self._crashed = sys.exc_info()[0] is not None
        with self._lock:
            self._closed = True
            waiting = [*self._arrived, *self._waiting]
        running = self._slots.running
        for sequence in running:
            if sequence.chain:
                sequence.chain.close()
        for sequence in (*waiting, *running):
            # A cancelled sequence has no coroutine any more that would read the error.
            if not sequence.cancelled:
                self._delivery.put(sequence.results, unloaded_error())
        self._delivery.send()
        if self._disk is not None and not self._crashed:
            for sequence in running:
                self._slots.release(sequence)

    # ---- one step ----------------------------------------------------------------------------------------------------

    def _step(self) -> bool:
        """Make one step. Return whether there is more work."""
        running = self._slots.running
        # Decided once for each step: admission, the prefill budget and the batch must agree on which sequences take
        # part.
        self._sitting_out = [sequence for sequence in running if _waits_for_late_mask(sequence, _LATE_MASK_SECONDS)]
        self._admit()
        for sequence in self._slots.running:
            self._shift_or_finish(sequence)
        self._evaluate_image()
        self._evaluate_tokens()
        # Events wait for the next batch, before which they are sent. Without a running sequence no batch follows.
        if not self._slots.busy:
            self._delivery.send()
            self._context.release_copies()
            if self._save_due and self._disk is not None:
                # One for each step, so that a prompt that arrives waits for one at most.
                self._save_due = self._disk.save_one(self._slots.contents())
                return self._save_due
        # Waiting sequences do not count as work: a sequence that leaves its slot is followed by its coroutine's
        # `cancel`, which wakes the thread.
        return self._slots.busy

    def _admit(self) -> None:
        # Looked at without the lock, since most steps find nothing. A sequence that arrives now wakes the thread.
        if arrived := bool(self._arrived):
            with self._lock:
                self._waiting.extend(self._arrived)
                self._arrived.clear()
        if self._waiting:
            self._waiting = [sequence for sequence in self._waiting if not sequence.cancelled]
        for sequence in self._slots.running:
            # Cancelled sequences leave before the admission, so that waiting ones can take their slots in the same
            # step.
            if sequence.cancelled:
                self._output.release(sequence)
        if self._waiting:
            if arrived:
                self._waiting.sort(key=lambda sequence: -sequence.request.priority)  # stable: equals stay in order
            streaming = any(sequence.decoding for sequence in self._slots.running)
            copy_seconds = self._prefill_budget.decode_seconds if streaming else math.inf
            self._waiting = self._slots.admit(self._waiting, self._prefill_tokens(), copy_seconds)

    def _prefill_tokens(self) -> int:
        """Return how many prompt tokens may go into the next step."""
        running = [sequence for sequence in self._slots.running if sequence not in self._sitting_out]
        decoding = sum(sequence.decoding for sequence in running)
        if not decoding:
            return self._context.batch_size
        # A waiting prompt raises the budget only if it finds an idle slot; otherwise none of its tokens can be in this
        # step.
        prompts = len(running) - decoding + min(len(self._waiting), self._slots.idle_count)
        return self._prefill_budget.tokens(decoding, prompts)

    def _shift_or_finish(self, sequence: Sequence) -> None:
        """Shift the context of a sequence if it is full, or end the sequence if it may not. End an empty prompt too."""
        # An empty prompt gives no logits from which a first token could be sampled.
        if not sequence.pending:
            self._output.finish(sequence, "stop")
            return
        length = self._context.length
        if sequence.evaluated + 1 < length:
            return
        request = sequence.request
        if not request.shift or not self._context.can_shift:
            self._output.finish(sequence, "length")
            return
        # A negative number keeps the whole prompt, as Ollama's num_keep does.
        keep = sequence.prompt_length if request.keep_tokens < 0 else request.keep_tokens
        # As in llama.cpp's server: BOS is kept on top of the number, and at least four tokens can be dropped.
        keep = min(keep + self._vocabulary.adds_bos, length - _UNSHIFTED_TOKENS)
        dropped = (sequence.evaluated - keep) // 2
        self._context.shift(sequence.slot, keep, keep + dropped)
        sequence.drop(keep, dropped)

    def _evaluate_image(self) -> None:
        """Evaluate vectors of one image, if an image is next in some sequence."""
        candidates = [sequence for sequence in self._slots.running if sequence.images.chunk_at(sequence.evaluated)]
        if not candidates:
            return
        # One image for each step: a batch of vectors belongs to one sequence, and the others wait no longer than a
        # batch.
        sequence = max(candidates, key=lambda sequence: sequence.request.priority)
        batch_size = self._context.batch_size
        # The budget is 0 before a step that measures decoding alone, but a batch needs at least one vector.
        room = max(1, min(batch_size, self._prefill_tokens()))
        part = sequence.images.slice(sequence.evaluated, room, batch_size)
        count = len(part.vectors)
        share = schedule.BatchShare(sequence, count, count == sequence.pending)
        batch = VectorBatch(
            sequence.slot,
            part.vectors,
            part.positions,
            output=share.completes or self._context.one_output,
            outputs_all=self._context.outputs_all,
        )
        prompts = [sequence.slot] if sequence.tiled else []

        def decode() -> None:
            self._context.decode_vectors(batch, causal=part.causal, prompts=prompts)

        self._run([BatchEntry(share, count - 1)], decode)

    def _evaluate_tokens(self) -> None:
        """Evaluate scheduled tokens, up to the next image of each sequence."""
        items = self._work_items()
        if not items:
            if self._sitting_out:
                # Sent here, since no batch follows in this step.
                self._delivery.send()
                _waits_for_late_mask(self._sitting_out[0], _IDLE_SECONDS)
            return
        step_began = time.perf_counter()
        # With waiting sequences a step without drafts must come soon, since only such steps measure the budget that
        # lets them in.
        only_decoding = all(item.decoding for item in items)
        shares = schedule.plan(items, self._context.batch_size, 0 if only_decoding else self._prefill_tokens())
        speculate = only_decoding and not self._waiting and self._context.accepts_drafts
        step = self._builder.build(shares, speculate=speculate)

        def decode() -> None:
            began = time.perf_counter()
            try:
                self._context.decode(
                    step.batch,
                    tiled_from=step.tiled_from,
                    invariant_sequences=step.invariant_sequences,
                    prompts=step.prompts,
                    draws=self._output.draws(step.entries),
                )
            finally:
                # Also after a failure. A padding token that stayed would be a cell that the slot's list of tokens does
                # not know.
                for slot, position in step.padding.items():
                    self._context.truncate(slot, position)
            # Draft tokens lengthen a step, so such a step says nothing about the budget.
            if not step.drafted:
                seconds = time.perf_counter() - began - self._context.waited_seconds
                self._prefill_budget.observe(step.decoding, step.prompt_tokens, seconds)
                if self._disk is not None and not step.decoding:
                    self._disk.observe_prefill(step.prompt_tokens, seconds)

        self._run(step.entries, decode)
        if only_decoding and self._speculator is not None:
            # With all that a step takes beside the decoding, which is most of it for a very small model.
            seconds = time.perf_counter() - step_began - step.model_seconds - self._context.waited_seconds
            self._speculator.costs.observe(step.decoding, step.drafted, seconds)

    def _work_items(self) -> list[schedule.WorkItem[Sequence]]:
        """Return the tokens that can be evaluated now, for each sequence that takes part in this step."""
        items = []
        running = self._slots.running
        # One row of logits is kept for the newest token of each sequence. Scored prompts share the others.
        rows = self._context.max_outputs - len(running)
        for sequence in running:
            if sequence.decoding:
                # Its newest token is neither an image nor scored, and most steps hold nothing else.
                if sequence not in self._sitting_out:
                    items.append(schedule.WorkItem(sequence, 1, decoding=True, priority=sequence.request.priority))
                continue
            end = self._slots.prefill_end(sequence)
            count = sequence.images.text_length(sequence.evaluated, end - sequence.evaluated)
            count = sequence.scores.limit(sequence.evaluated, count, rows)
            rows -= len(sequence.scores.rows(sequence.evaluated, count))
            if count > 0 and sequence not in self._sitting_out:
                final = count == sequence.pending
                priority = sequence.request.priority
                items.append(schedule.WorkItem(sequence, count, decoding=False, priority=priority, final=final))
        return items

    def _run(self, entries: list[BatchEntry], decode: Callable[[], None]) -> None:
        """Decode a batch and process its output. A batch with a cancelled sequence is not begun."""
        sequences = [entry.share.key for entry in entries]
        with self._lock:
            # The last look at the flags and the publication of `_in_prefill` are one critical section. A `cancel` comes
            # either before it and is seen here, or after it and sets the abort flag.
            if self._closed or any(sequence.cancelled for sequence in sequences):
                return
            self._context.set_abort(False)
            self._in_prefill = frozenset(sequence for sequence in sequences if not sequence.decoding)
            self._in_batch = sequences
        # The events of the last step are sent only now. Sent earlier, the event loop would compete for Python's lock
        # with the work between two batches.
        self._delivery.send()
        try:
            decode()
        except AbortedError:
            for sequence in sequences:
                # The result is 0 where llama.cpp cannot remove a part (recurrent models). The sequence then starts
                # over.
                sequence.evaluated = self._slots.undo(sequence)
            return
        except BackendError as error:
            self._output.fail(sequences, error)
            return
        finally:
            with self._lock:
                self._in_prefill, self._in_batch = frozenset(), []
        for entry in entries:
            self._output.advance(entry)


def _waits_for_late_mask(sequence: Sequence, seconds: float) -> bool:
    """Wait for the mask of a sequence whose mask was late before. Return whether it has still not come."""
    matcher = sequence.matcher
    return matcher is not None and matcher.mask_late and not matcher.wait_for_mask(seconds)
