"""Scores texts: how probable each continuation is after a context.

A continuation is scored by a sequence that generates nothing. Its prompt is the context with the continuation, and the
backend returns the log-probabilities of the prompt's tokens from the first one of the continuation on. All prompts
begin alike, so the backend's prefix cache evaluates the context once.

A token may reach over the border of two texts, so context and continuation are tokenized as one text. The tokens behind
those that it has in common with the context alone are the continuation's.
"""

import asyncio
import math
import time
from array import array
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

from puna.backend import Finish, PromptLogprobs, Sampling, SequenceRequest, TokenLogprob
from puna.errors import ContextOverflowError, TooLargeError
from puna.runtime.requirements import Lease, LeaseKind
from puna.serving.access import Access, OnProgress, check_capabilities, check_logprobs
from puna.serving.answers import Score, Scores, Usage
from puna.serving.clock import Clock
from puna.serving.demands import check_scoring, check_tokenizer
from puna.serving.lengths import head, is_long
from puna.serving.requests import RequestOptions, ScoreRequest
from puna.serving.sequence_runner import overflow_text, run, translating_errors

AT_ONCE: Final = 8
"""Most sequences of one request that run at once. Half of the model's slots at most are left to them."""
GREEDY: Final = Sampling(temperature=0.0)
LARGEST: Final = "PUNA_MAX_SCORE_LOGPROBS"


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A context with one continuation, as tokens."""

    shared: int
    """Leading tokens that are those of the context."""
    rest: "array[int]"
    """All tokens behind them."""

    @property
    def start(self) -> int:
        """Index of the first token that is scored. Nothing predicts the first token of all."""
        return max(self.shared, 1)

    @property
    def length(self) -> int:
        """Number of all tokens."""
        return self.shared + len(self.rest)

    @property
    def scored(self) -> int:
        """Number of tokens that are scored."""
        return max(self.length - self.start, 0)


async def score(access: Access, request: ScoreRequest, on_progress: OnProgress) -> Scores:
    """Return the log-probability of each continuation. Cancelling stops all sequences.

    Raises what Access.find and ModelPool.lease raise, OptionTypeError, CapabilityMissingError, DemandUnsupportedError,
    ContextOverflowError if a continuation does not fit behind the context, and TooLargeError.
    """
    asked = request.options
    clock = Clock(asked.start_ns)
    check_logprobs(asked)
    found = await access.find(request.model)
    access.refuse_remote(found)
    check_capabilities(found, "scoring", [])
    if found.backend is not None:
        check_scoring(found.backend)
    options = access.options_of(found.model, asked)
    async with access.lease(found.model, options, asked, on_progress, LeaseKind.SEQUENCE) as lease:
        clock.model_ready()
        with translating_errors():
            context = await _context(lease, request.context)
            prompts = [
                await _prompt(lease, request.context, context, each, f"continuations[{index}]")
                for index, each in enumerate(request.continuations)
            ]
        _check_size(prompts, asked, access.settings.limits.max_score_logprobs)
        scoring = _Scoring(lease, asked, context, prompts)
        begun = time.monotonic_ns()
        await scoring.run()
        # Sequences run at once, so the sum of their own times would count some time twice.
        spent = max(time.monotonic_ns() - begun, 1)
        return Scores(
            results=tuple(scoring.results),
            usage=Usage(
                prompt_tokens=len(context) + sum(len(each.rest) for each in prompts),
                cached_prompt_tokens=scoring.initially_cached,
            ),
            timings=replace(clock.timings(), prompt_eval_ns=spent),
        )


async def _context(lease: Lease, context: str | tuple[int, ...]) -> list[int]:
    return await _tokens(lease, context, "context") if isinstance(context, str) else list(context)


async def _prompt(
    lease: Lease,
    context: str | tuple[int, ...],
    context_tokens: Sequence[int],
    continuation: str | tuple[int, ...],
    field: str,
) -> _Prompt:
    """Return the tokens of a context with a continuation. Raises ContextOverflowError, which names the `field`."""
    shared = len(context_tokens)
    if not isinstance(continuation, str):
        rest: Sequence[int] = continuation
    elif isinstance(context, str):
        tokens = await _tokens(lease, context + continuation, field)
        pairs = zip(context_tokens, tokens, strict=False)
        shared = next((place for place, (one, other) in enumerate(pairs) if one != other), min(shared, len(tokens)))
        rest = tokens[shared:]
    else:
        check_tokenizer(lease.facts)
        rest = await lease.model.tokenize(continuation, add_special=False, parse_special=True)
    prompt = _Prompt(shared, array("i", rest))
    if 0 < (limit := lease.facts.context_length) < prompt.length:
        raise ContextOverflowError(overflow_text(prompt.length, limit), field=field)
    return prompt


async def _tokens(lease: Lease, text: str, field: str) -> list[int]:
    """Return the tokens of a text that begins a prompt."""
    facts = lease.facts
    check_tokenizer(facts)
    limit = facts.context_length
    # An unknown length bounds nothing.
    if limit and is_long(text, limit) and not (found := await head(lease.model, text, limit + 1)).complete:
        raise ContextOverflowError(overflow_text(len(found.tokens), limit, at_least=True), field=field)
    tokens = await lease.model.tokenize(text, add_special=True, parse_special=True)
    # A text that goes on does not end.
    return tokens[:-1] if facts.adds_eos and tokens and tokens[-1] == facts.eos_id else tokens


def _check_size(prompts: Sequence[_Prompt], asked: RequestOptions, most: int) -> None:
    if asked.logprobs and (count := sum(each.scored for each in prompts) * (1 + asked.top_logprobs)) > most:
        raise TooLargeError(
            f"the answer has {count} log-probabilities, at most {most} are sent; {LARGEST} changes the limit"
        )


class _Scoring:
    """The sequences of one request."""

    def __init__(self, lease: Lease, asked: RequestOptions, context: Sequence[int], prompts: Sequence[_Prompt]) -> None:
        self._lease, self._asked, self._context, self._prompts = lease, asked, context, prompts
        self.results = [Score()] * len(prompts)
        self.initially_cached = 0
        """Tokens of the context that the cache held before."""
        self._next = 0

    async def run(self) -> None:
        """Score all prompts, several at once. An error of one, or cancellation, ends all."""
        at_once = min(AT_ONCE, max(self._lease.facts.parallel // 2, 1), max(len(self._prompts), 1))
        workers = [asyncio.create_task(self._work()) for _ in range(at_once)]
        try:
            await asyncio.gather(*workers)
        finally:
            for each in workers:
                each.cancel()
            # The lease must not end before the sequences have.
            await asyncio.wait(workers)

    async def _work(self) -> None:
        while self._next < len(self._prompts):
            index, self._next = self._next, self._next + 1
            if self._prompts[index].scored:
                self.results[index] = await self._score(self._prompts[index], first=index == 0)

    async def _score(self, prompt: _Prompt, *, first: bool) -> Score:
        asked = self._asked
        sequence = SequenceRequest(
            prompt=(*self._context[: prompt.shared], *prompt.rest),
            sampling=GREEDY,
            max_tokens=0,
            score_from=prompt.start,
            # The most probable token tells whether the scored one is it.
            top_logprobs=max(asked.top_logprobs, 1),
            shift=False,
            cache_salt=asked.cache_salt,
            priority=asked.priority,
        )
        values: list[float] = []
        greedy = True
        tokens: list[TokenLogprob] = []
        async with aclosing(run(self._lease.model, sequence, guarded=False)) as events:
            async for event in events:
                if isinstance(event, PromptLogprobs):
                    values += [each.logprob for each in event.logprobs]
                    greedy = greedy and all(
                        each.logprob >= best.logprob for each in event.logprobs for best in each.top[:1]
                    )
                    tokens += [self._shown(each) for each in event.logprobs] if asked.logprobs else []
                elif isinstance(event, Finish) and first:
                    self.initially_cached = event.cached_prompt_tokens
        return Score(logprob=math.fsum(values), token_count=len(values), is_greedy=greedy, tokens=tuple(tokens))

    def _shown(self, each: TokenLogprob) -> TokenLogprob:
        return TokenLogprob(each.raw, each.token_id, each.logprob, each.top[: self._asked.top_logprobs])
