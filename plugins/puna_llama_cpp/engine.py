"""Continuous batching: the step loop of a model that writes text.

One thread per model. Each step drops cancelled sequences, admits waiting ones to idle slots, shifts full contexts, lets
`schedule.plan` say whose tokens go into the batch, evaluates it, and draws a token for every sequence that is complete.
What a step says is handed to the event loop by one call.

A sequence cancelled in the middle of its prompt aborts the running evaluation, which ends it for all in the batch.
Since a sequence is nothing but tokens and a count of those evaluated, the others are rewound and go on with the next
step.
"""

import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from puna.backend import BackendError, Prefill
from puna_llama_cpp import prefix, schedule
from puna_llama_cpp.batch import Batch, VectorBatch
from puna_llama_cpp.context import AbortedError, Context
from puna_llama_cpp.logprobs import token_logprob
from puna_llama_cpp.sampling import SamplerChain
from puna_llama_cpp.sequence import Sequence
from puna_llama_cpp.steps import Post, StepThread, ended_error
from puna_llama_cpp.vocabulary import Vocabulary

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Slot:
    """A place for one sequence in the cache."""

    index: int
    sequence: Sequence | None = None
    content: list[int] = field(default_factory=list)
    """What the last sequence left."""
    salt: str = ""
    used: int = 0


class Engine:
    """Runs sequences on a context. `submit` and `cancel` may be called from any thread."""

    def __init__(self, context: Context, vocabulary: Vocabulary, slots: int) -> None:
        """Serve up to `slots` sequences at once."""
        self._context, self._vocabulary = context, vocabulary
        self._batch = Batch(context.batch_size)
        self._slots = [Slot(index) for index in range(slots)]
        self._lock = threading.Lock()
        self._arrived: deque[Sequence] = deque()
        self._waiting: list[Sequence] = []
        self._evaluating: frozenset[Sequence] = frozenset()
        self._running: dict[int, Sequence] = {}
        self._clock = itertools.count(1)
        self._post = Post()
        self._ended = False
        self._thread = StepThread("llama-decode", self._step, self._end)
        self._thread.start()

    def submit(self, sequence: Sequence) -> None:
        """Queue a sequence. BackendError: the model was unloaded."""
        with self._lock:
            if self._ended:
                raise ended_error()
            self._arrived.append(sequence)
        self._thread.wake()

    def cancel(self, sequence: Sequence) -> None:
        """Drop a sequence as soon as possible, also while its prompt is evaluated. No harm if it is over."""
        with self._lock:
            sequence.cancelled = True
            if sequence in self._evaluating:
                self._context.abort(True)
        self._thread.wake()

    def close(self) -> None:
        """Stop and wait until the thread lets go of the context."""
        with self._lock:
            self._ended = True
            self._context.abort(True)
        self._thread.close()

    def _end(self) -> None:
        with self._lock:
            self._ended = True
            waiting = [*self._arrived, *self._waiting]
        for sequence in self._running.values():
            if sequence.chain:
                sequence.chain.close()
        for sequence in (*waiting, *self._running.values()):
            if not sequence.cancelled:
                self._post.put(sequence.mailbox, ended_error())
        self._post.send()

    # ---- one step ----------------------------------------------------------------------------------------------------

    def _step(self) -> bool:
        self._admit()
        for sequence in list(self._running.values()):
            self._make_room(sequence)
        self._look()
        self._evaluate()
        self._post.send()
        return bool(self._running)

    def _admit(self) -> None:
        with self._lock:
            self._waiting.extend(self._arrived)
            self._arrived.clear()
        self._waiting = [sequence for sequence in self._waiting if not sequence.cancelled]
        for sequence in [sequence for sequence in self._running.values() if sequence.cancelled]:
            self._release(sequence)
        self._waiting.sort(key=lambda sequence: -sequence.request.priority)
        while self._waiting and len(self._running) < len(self._slots):
            self._place(self._waiting.pop(0))

    def _place(self, sequence: Sequence) -> None:
        """Give a sequence the slot that knows most of its prompt."""
        request = sequence.request
        contents = [
            prefix.Content(
                slot.index,
                slot.sequence.content if slot.sequence else slot.content,
                slot.sequence is None,
                slot.used,
                slot.salt,
            )
            for slot in self._slots
        ]
        place = prefix.place(sequence.tokens, request.cache_salt, contents)
        assert place is not None, "admitted without an idle slot"
        if place.copied_from is not None:
            self._context.copy(place.copied_from, place.slot)
        slot = self._slots[place.slot]
        sequence.slot = place.slot
        reused = self._rewind(sequence, place.reused)
        sequence.start(place.slot, reused)
        if sequence.pending:
            prompt = [token for token in sequence.tokens[: sequence.prompt_length] if token >= 0]
            sequence.chain = SamplerChain(request.sampling, self._vocabulary, self._context.length, prompt)
        slot.sequence, slot.salt, slot.used = sequence, request.cache_salt, next(self._clock)
        self._running[place.slot] = sequence
        log.debug("slot %d takes %d tokens, %d of them cached", place.slot, len(sequence.tokens), reused)

    def _release(self, sequence: Sequence) -> None:
        """Take a sequence off its slot, which keeps its tokens for who begins like it."""
        slot = self._slots[sequence.slot]
        slot.content, slot.sequence, slot.used = sequence.content, None, next(self._clock)
        del self._running[sequence.slot]
        if sequence.chain:
            sequence.chain.close()
            sequence.chain = None

    def _finish(self, sequence: Sequence, reason: str) -> None:
        self._post.put(sequence.mailbox, sequence.finish(reason))
        self._release(sequence)

    def _make_room(self, sequence: Sequence) -> None:
        """Shift a full context, or end the sequence that may not. An empty prompt ends here too."""
        if not sequence.pending:
            self._finish(sequence, "stop")
            return
        length = self._context.length
        if sequence.evaluated + 1 < length:
            return
        request = sequence.request
        if not request.shift or not self._context.can_shift:
            self._finish(sequence, "length")
            return
        keep = sequence.prompt_length if request.keep_tokens < 0 else request.keep_tokens
        keep = min(keep + self._vocabulary.adds_bos, length - 4)
        discard = (sequence.evaluated - keep) // 2
        self._context.shift(sequence.slot, keep, keep + discard)
        sequence.forget(keep, discard)

    def _look(self) -> None:
        """Evaluate some vectors of one picture, if one is next somewhere: they need a batch without tokens."""
        looking = [sequence for sequence in self._running.values() if sequence.pictures.at(sequence.evaluated)]
        if not looking:
            return
        sequence = max(looking, key=lambda sequence: sequence.request.priority)
        streams = any(other.streaming for other in self._running.values())
        most = self._context.batch_size
        room = min(most, schedule.PREFILL_BESIDE_STREAMS) if streams else most
        part = sequence.pictures.slice(sequence.evaluated, room, most)
        count = len(part.vectors)
        share = schedule.Share(sequence, count, count == sequence.pending)
        batch = VectorBatch(sequence.slot, part.vectors, part.positions, output=share.completes)
        self._run([share], [count - 1], lambda: self._context.look(batch, causal=part.causal))

    def _evaluate(self) -> None:
        """Evaluate tokens, up to the next picture of each sequence."""
        wants = []
        for sequence in self._running.values():
            pending = sequence.pending
            text = sequence.pictures.text_length(sequence.evaluated, pending)
            if text > 0:
                final = text == pending
                wants.append(schedule.Want(sequence, text, sequence.streaming, sequence.request.priority, final))
        if not wants:
            return
        shares = schedule.plan(wants, self._context.batch_size)
        self._batch.clear()
        rows = []
        for share in shares:
            sequence = share.key
            start = sequence.evaluated
            tokens = sequence.tokens[start : start + share.count]
            position = sequence.pictures.position(start)
            rows.append(self._batch.add(sequence.slot, position, tokens, output=share.completes))
        self._run(shares, rows, lambda: self._context.decode(self._batch))

    def _run(self, shares: list[schedule.Share[Sequence]], rows: list[int], decode: Callable[[], None]) -> None:
        """Decode a batch, in which each share has its last row, and go on from what it says."""
        with self._lock:
            if self._ended or any(share.key.cancelled for share in shares):
                return
            self._context.abort(False)
            self._evaluating = frozenset(share.key for share in shares if not share.key.streaming)
        try:
            decode()
        except AbortedError:
            for share in shares:
                share.key.evaluated = self._rewind(share.key, share.key.evaluated)
            return
        except BackendError as error:
            self._fail(shares, error)
            return
        finally:
            with self._lock:
                self._evaluating = frozenset()
        for share, row in zip(shares, rows, strict=True):
            self._advance(share, row)

    def _rewind(self, sequence: Sequence, index: int) -> int:
        """Take a sequence's memory back to an index, or to the picture that is there, and return where it stands."""
        index = sequence.pictures.floor(index)
        position = sequence.pictures.position(index)
        return index if self._context.rewind(sequence.slot, position) == position else 0

    def _fail(self, shares: list[schedule.Share[Sequence]], error: BackendError) -> None:
        """End everything that was in a batch that llama.cpp could not evaluate."""
        for share in shares:
            self._post.put(share.key.mailbox, error)
            share.key.evaluated = self._context.rewind(share.key.slot, 0)
            self._release(share.key)

    def _advance(self, share: schedule.Share[Sequence], row: int) -> None:
        """Count what was evaluated and, if that was all, draw the next token."""
        sequence = share.key
        sequence.evaluated += share.count
        if not share.completes:
            if not sequence.begun:
                self._post.put(sequence.mailbox, Prefill(sequence.evaluated, len(sequence.tokens)))
        elif sequence.request.max_tokens == 0:
            self._finish(sequence, "length")
        else:
            try:
                self._draw(sequence, row)
            except BackendError as error:
                self._post.put(sequence.mailbox, error)
                self._release(sequence)

    def _draw(self, sequence: Sequence, row: int) -> None:
        assert sequence.chain is not None, "a running sequence has its samplers"
        top, matcher = sequence.request.top_logprobs, sequence.matcher
        plain = None
        if matcher or top is not None:
            logits = self._context.logits(row)
            plain = logits.copy() if matcher else logits
            if matcher:
                matcher.mask(logits)
        token = sequence.chain.draw(self._context, row)
        if matcher:
            matcher.accept(token)
        logprob = None
        if top is not None and plain is not None:
            logprob = token_logprob(plain, token, top, self._vocabulary, sequence.preserved)
        over = sequence.take(token, logprob, self._vocabulary, lambda event: self._post.put(sequence.mailbox, event))
        full = not sequence.request.shift and sequence.evaluated + 1 >= self._context.length
        if over:
            self._release(sequence)
        elif full:
            self._finish(sequence, "length")
