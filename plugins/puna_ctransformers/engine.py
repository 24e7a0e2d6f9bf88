"""One sequence after the other through the library, in whichever thread asks. Nothing here knows asyncio."""

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

SLICE = 32
"""Tokens per evaluation: the library cannot be interrupted within one."""
RESERVE = 4
"""Tokens of the context that are never kept in a shift."""


class Engine:
    """The model and what its cache holds. One call at a time."""

    def __init__(self, model: NativeModel, vocabulary: Vocabulary, threads: int) -> None:
        """`threads`: how many evaluate."""
        self._model = model
        self._vocabulary = vocabulary
        self._room = model.context_length
        self._threads = threads
        self._cached: list[int] = []
        self.steps = 0
        """Calls of the library that have evaluated something so far."""

    def generate(
        self, tokens: list[int], request: SequenceRequest, stopped: Callable[[], bool]
    ) -> Iterator[SequenceEvent]:
        """Go on from a prompt of at least one token, until `stopped` says so."""
        began = time.perf_counter_ns()
        cached = self._forget_beyond(tokens)
        for done in self._evaluate(tokens[cached:], stopped):
            if cached + done < len(tokens):
                yield Prefill(cached + done, len(tokens))
        if stopped():
            return
        started = time.perf_counter_ns()
        run = _Run(request, len(tokens))
        while run.count < request.max_tokens and not run.reason:
            if len(self._cached) >= self._room and not self._shift(run, stopped):
                break
            yield from self._step(run)
            if stopped():
                return
        yield Finish(
            reason=run.reason or "length",
            stop_sequence=run.text.stop_sequence,
            prompt_tokens=len(tokens),
            cached_prompt_tokens=cached,
            output_tokens=run.count,
            prompt_eval_ns=started - began,
            eval_ns=time.perf_counter_ns() - started,
        )

    def embed(self, tokens: list[int], stopped: Callable[[], bool]) -> list[float]:
        """Return the state of the last token."""
        for _ in self._evaluate(tokens[self._forget_beyond(tokens) :], stopped):
            pass
        return self._model.state()

    def _forget_beyond(self, tokens: list[int]) -> int:
        """Keep of the cache what the tokens begin with, at most all but one, and return how many that are."""
        same, most = 0, min(len(self._cached), len(tokens) - 1)
        while same < most and self._cached[same] == tokens[same]:
            same += 1
        del self._cached[same:]
        return same

    def _evaluate(self, tokens: list[int], stopped: Callable[[], bool]) -> Iterator[int]:
        """Evaluate in slices, yielding how many are done, until `stopped` says so."""
        for begin in range(0, len(tokens), SLICE):
            part = tokens[begin : begin + SLICE]
            self._model.evaluate(part, len(self._cached), self._threads)
            self.steps += 1
            self._cached += part
            yield begin + len(part)
            if stopped():
                return

    def _step(self, run: "_Run") -> Iterator[TextDelta]:
        """Draw a token and take it in."""
        logits = self._model.logits() if run.request.top_logprobs is not None else []
        token = self._sample(run)
        run.count += 1
        special = self._vocabulary.special.get(token, b"").decode(errors="replace") in run.request.preserved_tokens
        raw = self._vocabulary.piece(token, special=special)
        if logits:
            run.logprobs.append(self._logprob(token, logits, run.request.top_logprobs or 0))
        if token in self._vocabulary.ends:
            run.reason = "stop"
            text = run.text.finish()
        else:
            text = run.text.feed(raw)
            if run.text.stopped:
                run.reason = "stop"
            elif run.count < run.request.max_tokens:
                self._model.evaluate([token], len(self._cached), self._threads)
                self.steps += 1
                self._cached.append(token)
        if text:
            yield TextDelta(text, run.take_logprobs())

    def _sample(self, run: "_Run") -> int:
        sampling = run.request.sampling
        greedy = sampling.temperature <= 0
        last = sampling.repeat_last_n if sampling.repeat_last_n >= 0 else self._room
        return self._model.sample(
            self._cached[-last:] if last else [],
            top_k=1 if greedy else sampling.top_k or self._vocabulary.size,  # 0 would count as 1
            top_p=sampling.top_p,
            temperature=1.0 if greedy else sampling.temperature,
            penalty=sampling.repeat_penalty,
            seed=next(run.seeds),
        )

    def _shift(self, run: "_Run", stopped: Callable[[], bool]) -> bool:
        """Forget the older half of what follows the kept tokens, by evaluating the rest anew; False: it may not be."""
        request = run.request
        keep = run.prompt_tokens if request.keep_tokens < 0 else request.keep_tokens + self._vocabulary.adds_bos
        keep = max(min(keep, self._room - RESERVE), 0)
        forget = (len(self._cached) - keep) // 2
        if not request.shift or forget <= 0:
            return False
        left = self._cached[:keep] + self._cached[keep + forget :]
        for _ in self._evaluate(left[self._forget_beyond(left) :], stopped):
            pass
        return not stopped()

    def _logprob(self, token: int, logits: list[float], top: int) -> TokenLogprob:
        most = max(logits)
        total = most + math.log(sum(math.exp(each - most) for each in logits))

        def of(index: int) -> TokenLogprob:
            return TokenLogprob(self._vocabulary.piece(index, special=True), index, logits[index] - total)

        best = heapq.nlargest(top, range(len(logits)), logits.__getitem__)
        chosen = of(token)
        return TokenLogprob(chosen.raw, token, chosen.logprob, tuple(map(of, best)))


class _Run:
    """A sequence's request and how far it is."""

    def __init__(self, request: SequenceRequest, prompt_tokens: int) -> None:
        self.request = request
        self.prompt_tokens = prompt_tokens
        self.seeds = _seeds(request.sampling.seed)
        self.text = TextAssembly(request.stop)
        self.count = 0
        self.reason = ""
        self.logprobs: list[TokenLogprob] = []

    def take_logprobs(self) -> tuple[TokenLogprob, ...]:
        """Return those of the tokens since the last piece."""
        taken, self.logprobs = tuple(self.logprobs), []
        return taken


def check_length(tokens: list[int], context_length: int) -> None:
    """PromptTooLongError: there is no room for so many tokens and one more. The library would run past its end."""
    if len(tokens) >= context_length:
        raise PromptTooLongError(len(tokens), context_length)


def _seeds(seed: int | None) -> Iterator[int]:
    """Yield a seed for every token: the library takes one with each draw, and the same again would be the same luck."""
    luck = random.Random(seed)
    return (luck.getrandbits(31) for _ in itertools.count())
