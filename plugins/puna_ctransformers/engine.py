"""Runs one sequence after the other through the library, on the calling thread. Nothing here knows asyncio.

The library evaluates a batch without a way to interrupt it, so prompts are evaluated in chunks, and `stopped` is asked
between two of them. The engine knows which tokens the library's cache holds. A new prompt keeps the longest common
prefix of that and evaluates the rest. The library cannot move cached tokens, so a context shift evaluates the kept ones
again.
"""

import heapq
import itertools
import math
import random
import time
from collections.abc import Callable, Iterator

from puna.backend import (
    Finish,
    Prefill,
    PromptTooLongError,
    SequenceEvent,
    SequenceRequest,
    TextDelta,
    TokenLogprob,
)
from puna.backend.text import TextAssembly
from puna_ctransformers.native import NativeModel
from puna_ctransformers.vocabulary import Vocabulary

PREFILL_CHUNK = 32
"""Tokens in one evaluation, which bounds the time until a cancellation takes effect."""
UNKEPT_TOKENS = 4
"""Tokens of the context that a shift never keeps."""


class Engine:
    """The model, and the tokens that its cache holds. One call at a time."""

    def __init__(self, model: NativeModel, vocabulary: Vocabulary, threads: int) -> None:
        """Take a model with an empty cache. `threads`: the number of threads that evaluate."""
        self._model = model
        self._vocabulary = vocabulary
        self._context_length = model.context_length
        self._threads = threads
        self._cached: list[int] = []
        self._salt = ""
        """The salt of the sequence whose tokens the cache holds. Only sequences with the same salt may reuse them."""
        self.steps = 0
        """The evaluations so far."""

    def generate(
        self, tokens: list[int], request: SequenceRequest, stopped: Callable[[], bool]
    ) -> Iterator[SequenceEvent]:
        """Yield the events of one sequence, until `stopped` returns true. The prompt has at least one token."""
        started = time.perf_counter_ns()
        cached = self._truncate_cache(tokens, request.cache_salt)
        for done in self._evaluate(tokens[cached:], stopped):
            # After the last chunk the first token follows at once, which tells clients the same.
            if cached + done < len(tokens):
                yield Prefill(cached + done, len(tokens))
        if stopped():
            return
        decode_started = time.perf_counter_ns()
        state = _SequenceState(request, len(tokens), cached)
        while state.count < request.max_tokens and not state.reason:
            if len(self._cached) >= self._context_length and not self._shift(state, stopped):
                break
            yield from self._step(state)
            if stopped():
                return
        yield Finish(
            reason=state.reason or "length",
            stop_sequence=state.text.stop_sequence,
            prompt_tokens=len(tokens),
            cached_prompt_tokens=cached,
            output_tokens=state.count,
            prompt_eval_ns=decode_started - started,
            eval_ns=time.perf_counter_ns() - decode_started,
        )

    def embed(self, tokens: list[int], stopped: Callable[[], bool]) -> list[float]:
        """Return the state of the last token."""
        for _ in self._evaluate(tokens[self._truncate_cache(tokens, "") :], stopped):
            pass
        return self._model.last_state()

    def _truncate_cache(self, tokens: list[int], salt: str) -> int:
        """Truncate the cache to its common prefix with `tokens`, and return the length of that.

        A cache of another salt has no common prefix: the time of an answer must not tell one client what another has
        asked. At least one token is left to evaluate, since its logits are needed.
        """
        if salt != self._salt:
            self._cached.clear()
            self._salt = salt
        # Only the list changes: `evaluate` passes the number of cached tokens to the library, which overwrites what
        # follows.
        same, limit = 0, min(len(self._cached), len(tokens) - 1)
        while same < limit and self._cached[same] == tokens[same]:
            same += 1
        del self._cached[same:]
        return same

    def _evaluate(self, tokens: list[int], stopped: Callable[[], bool]) -> Iterator[int]:
        """Evaluate tokens in chunks, and yield how many are done, until `stopped` returns true."""
        # The library offers no way to interrupt an evaluation, so cancellation takes effect between two chunks.
        for begin in range(0, len(tokens), PREFILL_CHUNK):
            part = tokens[begin : begin + PREFILL_CHUNK]
            self._model.evaluate(part, len(self._cached), self._threads)
            self.steps += 1
            # After the call, so that the list still describes the cache if the library fails.
            self._cached += part
            yield begin + len(part)
            if stopped():
                return

    def _step(self, state: "_SequenceState") -> Iterator[TextDelta]:
        """Sample a token, and evaluate it unless it is the last."""
        # Copied only on demand: a vocabulary's width as Python floats takes milliseconds.
        logits = self._model.logits() if state.request.top_logprobs is not None else []
        token = self._sample(state)
        state.count += 1
        special = self._vocabulary.special.get(token, b"").decode(errors="replace") in state.request.preserved_tokens
        raw = self._vocabulary.token_bytes(token, special=special)
        if logits:
            state.logprobs.append(self._logprob(token, logits, state.request.top_logprobs or 0))
        if token in self._vocabulary.end_tokens:
            state.reason = "stop"
            text = state.text.finish()
        else:
            text = state.text.feed(raw)
            if state.text.stopped:
                state.reason = "stop"
            elif state.count < state.request.max_tokens:
                self._model.evaluate([token], len(self._cached), self._threads)
                self.steps += 1
                self._cached.append(token)
        if text:
            yield TextDelta(text, state.take_logprobs(), state.take_cached())

    def _sample(self, state: "_SequenceState") -> int:
        sampling = state.request.sampling
        greedy = sampling.temperature <= 0
        last = sampling.repeat_last_n if sampling.repeat_last_n >= 0 else self._context_length
        return self._model.sample(
            # With 0, the slice [-0:] would be the whole list.
            self._cached[-last:] if last else [],
            top_k=1 if greedy else sampling.top_k or self._vocabulary.size,  # the library takes 0 for 1
            top_p=sampling.top_p,
            temperature=1.0 if greedy else sampling.temperature,
            penalty=sampling.repeat_penalty,
            seed=next(state.seeds),
        )

    def _shift(self, state: "_SequenceState", stopped: Callable[[], bool]) -> bool:
        """Shift the context: drop half of the tokens behind the kept ones. Return whether generation may go on."""
        request = state.request
        keep = state.prompt_tokens if request.keep_tokens < 0 else request.keep_tokens + self._vocabulary.adds_bos
        keep = max(min(keep, self._context_length - UNKEPT_TOKENS), 0)
        dropped = (len(self._cached) - keep) // 2
        if not request.shift or dropped <= 0:
            return False
        kept = self._cached[:keep] + self._cached[keep + dropped :]
        # The library cannot move cached tokens to other positions, so the tokens behind the gap are evaluated again.
        for _ in self._evaluate(kept[self._truncate_cache(kept, request.cache_salt) :], stopped):
            pass
        return not stopped()

    def _logprob(self, token: int, logits: list[float], top: int) -> TokenLogprob:
        # Subtracting the maximum keeps exp() from overflowing.
        limit = max(logits)
        total = limit + math.log(sum(math.exp(each - limit) for each in logits))

        def of(index: int) -> TokenLogprob:
            return TokenLogprob(self._vocabulary.token_bytes(index, special=True), index, logits[index] - total)

        best = heapq.nlargest(top, range(len(logits)), logits.__getitem__)
        chosen = of(token)
        return TokenLogprob(chosen.raw, token, chosen.logprob, tuple(map(of, best)))


class _SequenceState:
    """A request, and how far its sequence is."""

    def __init__(self, request: SequenceRequest, prompt_tokens: int, cached: int) -> None:
        self.request = request
        self.prompt_tokens = prompt_tokens
        self._cached = cached
        self.seeds = _seeds(request.sampling.seed)
        self.text = TextAssembly(request.stop)
        self.count = 0
        self.reason = ""
        self.logprobs: list[TokenLogprob] = []

    def take_logprobs(self) -> tuple[TokenLogprob, ...]:
        """Return the log-probabilities of the tokens since the last text delta."""
        taken, self.logprobs = tuple(self.logprobs), []
        return taken

    def take_cached(self) -> int:
        """Return the number of cached prompt tokens at the first call, and 0 from then on."""
        taken, self._cached = self._cached, 0
        return taken


def check_length(tokens: list[int], context_length: int) -> None:
    """Raise PromptTooLongError if the context has no room for these tokens and one more.

    The library would overrun it.
    """
    if len(tokens) >= context_length:
        raise PromptTooLongError(len(tokens), context_length)


def _seeds(seed: int | None) -> Iterator[int]:
    """Yield a seed for every token. The library seeds its generator at each draw, so one seed would repeat one draw."""
    # The request's seed determines all of them, so that a request with a seed can be repeated.
    generator = random.Random(seed)
    return (generator.getrandbits(31) for _ in itertools.count())
