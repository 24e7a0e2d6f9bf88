"""Continuous batching: the step loop of a model that writes text.

One thread per model. Each step drops cancelled sequences, admits waiting ones to idle slots, shifts full contexts, lets
`schedule.plan` say whose tokens go into the batch, evaluates it, and draws a token for every sequence that is complete,
or several where `speculation` guessed right.
What a step says is handed to the event loop by one call.

A sequence cancelled in the middle of its prompt aborts the running evaluation, which ends it for all in the batch.
Since a sequence is nothing but tokens and a count of those evaluated, the others are rewound and go on with the next
step.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from puna.backend import BackendError, Prefill
from puna_ggml_kernels.loader import SHORTEST_PREFILL, TILED_PREFILL_ROWS
from puna_llama_cpp.binding.batch import Batch, VectorBatch
from puna_llama_cpp.binding.context import FEW_OUTPUTS, AbortedError, Context
from puna_llama_cpp.binding.vocabulary import Vocabulary
from puna_llama_cpp.generation import schedule
from puna_llama_cpp.generation.sequence import Sequence
from puna_llama_cpp.generation.slots import Slots
from puna_llama_cpp.sampling.chain import SamplerChain
from puna_llama_cpp.sampling.logprobs import token_logprob
from puna_llama_cpp.step_thread import Post, StepThread, ended_error

_ANY_TOKEN = 0
_GRACE = 0.05
"""Seconds that all sequences wait for the mask of one, once."""
_MOMENT = 0.001
"""Seconds that all sequences wait, in a step, for a mask that was late before."""
_IDLE = 0.005
"""Seconds between two looks at what else there is to do, while only late masks are waited for."""


@dataclass(frozen=True, slots=True)
class Part:
    """A sequence's share of a batch that is evaluated."""

    share: schedule.Share[Sequence]
    row: int
    """Of the share's last token, guesses aside."""
    guess: list[int] = field(default_factory=list)
    """Tokens evaluated after it, in the hope that they will be drawn."""


class Engine:
    """Runs sequences on a context. `submit` and `cancel` may be called from any thread."""

    def __init__(self, context: Context, vocabulary: Vocabulary, slots: int) -> None:
        """Serve up to `slots` sequences at once."""
        self._context, self._vocabulary = context, vocabulary
        self._batch = Batch(context.batch_size)
        self._slots = Slots(context, slots)
        self._pace = schedule.Pace()
        self._lock = threading.Lock()
        self._arrived: deque[Sequence] = deque()
        self._waiting: list[Sequence] = []
        self._evaluating: frozenset[Sequence] = frozenset()
        self._late: list[Sequence] = []
        """Sequences that sit out this step, since their constraints' masks are late."""
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

    def step(self) -> int | None:
        """Return how many steps were made; None while there is no work."""
        return self._thread.step()

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
        running = self._slots.running
        for sequence in running:
            if sequence.chain:
                sequence.chain.close()
        for sequence in (*waiting, *running):
            if not sequence.cancelled:
                self._post.put(sequence.mailbox, ended_error())
        self._post.send()

    # ---- one step ----------------------------------------------------------------------------------------------------

    def _step(self) -> bool:
        self._late = [sequence for sequence in self._slots.running if _sits_out(sequence, _MOMENT)]
        self._admit()
        for sequence in self._slots.running:
            self._make_room(sequence)
        self._look()
        self._evaluate()
        if not self._slots.busy:
            self._post.send()
        return self._slots.busy

    def _admit(self) -> None:
        with self._lock:
            arrived = bool(self._arrived)
            self._waiting.extend(self._arrived)
            self._arrived.clear()
        self._waiting = [sequence for sequence in self._waiting if not sequence.cancelled]
        for sequence in self._slots.running:
            if sequence.cancelled:
                self._release(sequence)
        if self._waiting:
            if arrived:
                self._waiting.sort(key=lambda sequence: -sequence.request.priority)
            self._waiting = self._slots.admit(self._waiting, self._room())

    def _room(self) -> int:
        """Return how many prompt tokens may go into the next step."""
        running = [sequence for sequence in self._slots.running if sequence not in self._late]
        streams = sum(sequence.streaming for sequence in running)
        if not streams:
            return self._context.batch_size
        prompts = len(running) - streams + min(len(self._waiting), self._slots.idle)
        return self._pace.beside(streams, prompts)

    def _release(self, sequence: Sequence) -> None:
        self._slots.release(sequence)
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
        running = self._slots.running
        looking = [sequence for sequence in running if sequence.pictures.at(sequence.evaluated)]
        if not looking:
            return
        sequence = max(looking, key=lambda sequence: sequence.request.priority)
        most = self._context.batch_size
        part = sequence.pictures.slice(sequence.evaluated, max(1, min(most, self._room())), most)
        count = len(part.vectors)
        share = schedule.Share(sequence, count, count == sequence.pending)
        batch = VectorBatch(sequence.slot, part.vectors, part.positions, output=share.completes)
        self._run([Part(share, count - 1)], lambda: self._context.look(batch, causal=part.causal))

    def _evaluate(self) -> None:
        """Evaluate tokens, up to the next picture of each sequence."""
        wants = []
        for sequence in self._slots.running:
            pending = sequence.pending
            now = self._slots.stop(sequence) - sequence.evaluated
            text = sequence.pictures.text_length(sequence.evaluated, now)
            if text > 0 and sequence not in self._late:
                final = text == pending
                wants.append(schedule.Want(sequence, text, sequence.streaming, sequence.request.priority, final))
        if not wants:
            if self._late:
                self._post.send()  # no batch follows that would
                _sits_out(self._late[0], _IDLE)
            return
        streams = sum(want.streaming for want in wants)
        shares = schedule.plan(wants, self._context.batch_size, self._room())
        # Who waits is let in once a step without guesses has been measured.
        alone = streams == len(wants) and not self._waiting and self._context.can_rewind
        guesses = (FEW_OUTPUTS - streams) // streams if alone else 0
        tokens = sum(share.count for share in shares)
        by_slot = {share.key.slot: share for share in shares}
        fillers = self._slots.fillers(by_slot)
        if tokens + len(fillers) > self._context.batch_size:
            fillers = {}
        self._batch.clear()
        parts = []
        for slot in sorted((*by_slot, *fillers)):
            if slot in fillers:
                self._batch.add(slot, fillers[slot], [_ANY_TOKEN], output=False)
            else:
                parts.append(self._part(by_slot[slot], guesses))

        prompts = [share.key for share in shares if not share.key.streaming]
        parts_of_long = bool(prompts) and all(sequence.among_many(self._context.batch_size) for sequence in prompts)
        tiles_from = (SHORTEST_PREFILL if streams else 1) if parts_of_long else TILED_PREFILL_ROWS
        guessed = any(part.guess for part in parts)

        def decode() -> None:
            began = time.perf_counter()
            try:
                self._context.decode(self._batch, tiles_from=tiles_from, guesses=guessed)
            finally:
                for slot, position in fillers.items():
                    self._context.rewind(slot, position)
            if not guessed:
                self._pace.observe(streams, tokens - streams, time.perf_counter() - began)

        self._run(parts, decode)

    def _part(self, share: schedule.Share[Sequence], guesses: int) -> Part:
        """Add a sequence's tokens to the batch, and so many more that may follow them."""
        sequence = share.key
        start = sequence.evaluated
        tokens = sequence.tokens[start : start + share.count]
        guess: list[int] = []
        if (most := min(guesses, self._context.length - start - 2)) > 0:
            guess = sequence.lookup.guess(sequence.tokens, most)
        position = sequence.pictures.position(start)
        last = self._batch.add(sequence.slot, position, tokens + guess, output=share.completes, every=bool(guess))
        return Part(share, last - len(guess), guess)

    def _run(self, parts: list[Part], decode: Callable[[], None]) -> None:
        """Decode a batch and go on from what it says."""
        sequences = [part.share.key for part in parts]
        with self._lock:
            if self._ended or any(sequence.cancelled for sequence in sequences):
                return
            self._context.abort(False)
            self._evaluating = frozenset(sequence for sequence in sequences if not sequence.streaming)
        # Only now is the last step's news sent: the event loop works on it while llama.cpp computes without Python's
        # lock, for which it would else compete with all that has to be done between two batches.
        self._post.send()
        try:
            decode()
        except AbortedError:
            for sequence in sequences:
                sequence.evaluated = self._slots.rewind(sequence, sequence.evaluated)
            return
        except BackendError as error:
            self._fail(sequences, error)
            return
        finally:
            with self._lock:
                self._evaluating = frozenset()
        for part in parts:
            self._advance(part)

    def _fail(self, sequences: list[Sequence], error: BackendError) -> None:
        """End everything that was in a batch that llama.cpp could not evaluate."""
        for sequence in sequences:
            self._post.put(sequence.mailbox, error)
            sequence.evaluated = self._context.rewind(sequence.slot, 0)
            self._release(sequence)

    def _advance(self, part: Part) -> None:
        """Count what was evaluated and, if that was all, draw what follows."""
        sequence = part.share.key
        if part.share.completes and sequence.matcher and not sequence.matcher.wait(_GRACE):
            sequence.matcher.late = True
            sequence.evaluated = self._slots.rewind(sequence, sequence.evaluated)
            return
        sequence.evaluated += part.share.count
        if not part.share.completes:
            if not sequence.begun:
                self._post.put(sequence.mailbox, Prefill(sequence.evaluated, len(sequence.tokens)))
        elif sequence.request.max_tokens == 0:
            self._finish(sequence, "length")
        else:
            try:
                self._draw(sequence, part)
            except BackendError as error:
                self._post.put(sequence.mailbox, error)
                self._release(sequence)

    def _draw(self, sequence: Sequence, part: Part) -> None:
        """Draw the next token, and more as long as the guess was right. The samplers see the same as without it."""
        right = 0
        while not self._draw_one(sequence, part.row + right):
            if right == len(part.guess) or sequence.tokens[-1] != part.guess[right]:
                break
            if sequence.matcher and not sequence.matcher.wait(_GRACE):
                sequence.matcher.late = True
                break
            right += 1
            sequence.evaluated += 1
        else:
            return
        if part.guess:
            sequence.lookup.learn(len(part.guess), right)
            if right < len(part.guess):
                self._slots.rewind(sequence, sequence.evaluated)

    def _draw_one(self, sequence: Sequence, row: int) -> bool:
        """Draw a token from a row's logits; return whether the sequence is over."""
        if sequence.chain is None:
            prompt = [token for token in sequence.tokens[: sequence.prompt_length] if token >= 0]
            sequence.chain = SamplerChain(sequence.request.sampling, self._vocabulary, self._context.length, prompt)
        top, matcher = sequence.request.top_logprobs, sequence.matcher
        plain = None
        if matcher or top is not None:
            logits = self._context.logits(row)
            if top is not None:
                plain = logits.copy() if matcher else logits
            if matcher:
                matcher.mask(logits)
        token = sequence.chain.draw(self._context, row)
        logprob = None
        if top is not None and plain is not None:
            logprob = token_logprob(plain, token, top, self._vocabulary, sequence.preserved)
        over = sequence.take(token, logprob, self._vocabulary, lambda event: self._post.put(sequence.mailbox, event))
        full = not sequence.request.shift and sequence.evaluated + 1 >= self._context.length
        if over:
            self._release(sequence)
        elif full:
            self._finish(sequence, "length")
        elif matcher:
            matcher.accept(token)
        return over or full


def _sits_out(sequence: Sequence, seconds: float) -> bool:
    """Say whether a sequence waits for a mask that has been late before and does not come within these seconds."""
    matcher = sequence.matcher
    return matcher is not None and matcher.late and not matcher.wait(seconds)
