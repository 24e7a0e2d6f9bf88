"""A right backend: real sampling over a tiny made-up language model. Mutants override one method each.

It pretends to have a device: prefill takes time for each token, in batches between which other tasks run. Sequences
that find no slot wait in a queue. Tokens that were evaluated are kept and reused by prompts with the same salt.
"""

import asyncio
import heapq
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tests.plugins.mutants.embedding import EmbeddingMixin
from tests.plugins.mutants.grammar import Grammar, Matcher
from tests.plugins.mutants.language_model import LanguageModel, State
from tests.plugins.mutants.sampler import Sampler
from tests.plugins.mutants.vocabulary import BOS, EOS, SPECIAL, Vocabulary

from puna.backend import (
    Backend,
    Constraint,
    Finish,
    InvalidRequestError,
    LoadedModel,
    ModelFacts,
    ModelSpec,
    Prefill,
    PromptLogprobs,
    PromptTooLongError,
    SequenceEvent,
    SequenceRequest,
    TextDelta,
    TokenLogprob,
    UnsupportedError,
)
from puna.backend.text import TextAssembly

HEADER = b"tiny model\n"
TRAINED_CONTEXT = 4096
SECONDS_PER_TOKEN = 0.0004
"""Time of the pretended device for each token of a prefill."""
BATCH = 64
KEPT = 16
"""Number of prompts whose tokens stay cached."""


@dataclass
class Run:
    """A running sequence."""

    request: SequenceRequest
    tokens: list[int]
    prompt_tokens: int
    states: list[State]
    """The model's state after 0, 1, 2 ... tokens."""
    sampler: Sampler
    text: TextAssembly
    matcher: Matcher | None
    cached: int = 0
    unreported: int = 0
    """Cached tokens until the first delta has counted them."""
    output: int = 0
    logprobs: list[TokenLogprob] = field(default_factory=list)
    begun: int = field(default_factory=time.perf_counter_ns)
    decoding: int = 0


class TinyModel(EmbeddingMixin, LoadedModel):
    """A loaded model."""

    parallel = 2
    sampler_class: type[Sampler] = Sampler
    assembly_class: type[TextAssembly] = TextAssembly

    def __init__(self, spec: ModelSpec, vocabulary: Vocabulary) -> None:
        self.spec = spec
        self.vocabulary = vocabulary
        self.language = language_model(vocabulary)
        self.grammar = Grammar(vocabulary)
        self.cache: list[tuple[str, list[int], list[State]]] = []
        self.free = self.parallel
        self.waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self.arrived = 0
        self.steps = 0
        self.open = 0

    @property
    def facts(self) -> ModelFacts:
        return ModelFacts(
            context_length=min(self.spec.context_length, TRAINED_CONTEXT),
            parallel=self.parallel,
            size_bytes=1 << 20,
            adds_bos=True,
            bos_id=BOS,
            eos_id=EOS,
            bos_text=SPECIAL[BOS],
            eos_text=SPECIAL[EOS],
            embedding_length=self.dimensions,
            embedding_tokens=48,
        )

    # ---- A sequence from its request to its end ----

    async def generate(self, request: SequenceRequest, /) -> AsyncGenerator[SequenceEvent]:
        self.open += 1
        try:
            self.check_media(request)
            tokens = self.prompt_tokens(request)
            self.check_scored(request, tokens)
            if not (self.scores_only(request) and len(tokens) == self.facts.context_length):
                self.check_length(tokens)
            self.vocabulary.check(tuple(request.sampling.logit_bias))
            matcher = self.matcher(request.constraint)
            async with self.slot(request), aclosing(self.serve(request, tokens, matcher)) as events:
                async for event in events:
                    yield event
        finally:
            self.open -= 1

    def check_media(self, request: SequenceRequest) -> None:
        if request.media:
            raise UnsupportedError("this model takes no images")

    def prompt_tokens(self, request: SequenceRequest) -> list[int]:
        if isinstance(request.prompt, str):
            return self.vocabulary.tokenize(request.prompt, add_special=True, parse_special=True)
        self.vocabulary.check(request.prompt)
        return list(request.prompt)

    def check_scored(self, request: SequenceRequest, tokens: list[int]) -> None:
        if request.score_from is not None and (
            isinstance(request.prompt, str) or not 0 < request.score_from < len(tokens)
        ):
            raise InvalidRequestError("this prompt cannot be scored")

    def scores_only(self, request: SequenceRequest) -> bool:
        return request.score_from is not None and request.max_tokens == 0

    def check_length(self, tokens: list[int]) -> None:
        if len(tokens) >= self.facts.context_length:
            raise PromptTooLongError(len(tokens), self.facts.context_length)

    def matcher(self, constraint: Constraint | None) -> Matcher | None:
        return self.grammar.matcher(constraint) if constraint else None

    @asynccontextmanager
    async def slot(self, request: SequenceRequest) -> AsyncIterator[None]:
        """Hold a slot."""
        await self.take_slot(request.priority)
        try:
            yield
        finally:
            self.give_slot()

    async def take_slot(self, priority: int) -> None:
        if self.free and not self.waiting:
            self.free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self.arrived += 1
        heapq.heappush(self.waiting, (-priority, self.arrived, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_slot()
            raise

    def give_slot(self) -> None:
        while self.waiting:
            *_, turn = heapq.heappop(self.waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1

    async def serve(
        self, request: SequenceRequest, tokens: list[int], matcher: Matcher | None
    ) -> AsyncGenerator[SequenceEvent]:
        run = Run(request, tokens, len(tokens), [], self.sampler(request, tokens), self.assembly(request), matcher)
        run.states = self.reuse(tokens, request.cache_salt)
        run.cached = run.unreported = len(run.states) - 1
        async with aclosing(self.prefill(run)) as events:
            async for event in events:
                yield event
        if request.score_from is not None:
            yield PromptLogprobs(tuple(self.scores(run, request.score_from)))
        run.decoding = time.perf_counter_ns()
        reason = "length" if request.max_tokens == 0 else ""
        while not reason:
            if len(run.tokens) >= self.facts.context_length and not self.shift(run):
                reason = "length"
                break
            text, reason = self.decode(run)
            if text:
                yield self.delta(run, text)
            await self.between_tokens(run)
        self.keep(run)
        yield self.finish(run, reason)

    def scores(self, run: Run, start: int) -> list[TokenLogprob]:
        """Return the log-probabilities of prompt tokens, each from the state behind the token before it."""
        top = run.request.top_logprobs or 0
        return [self.prompt_logprob(run, index, top) for index in range(start, run.prompt_tokens)]

    def prompt_logprob(self, run: Run, index: int, top: int) -> TokenLogprob:
        return self.logprob(run, self.language.logits(run.states[index]), run.tokens[index], top)

    def sampler(self, request: SequenceRequest, tokens: list[int]) -> Sampler:
        return self.sampler_class(request.sampling, tokens)

    def assembly(self, request: SequenceRequest) -> TextAssembly:
        return self.assembly_class(request.stop)

    def reuse(self, tokens: list[int], salt: str) -> list[State]:
        """Return the states of the longest cached prefix. At least one token is left to evaluate."""
        best: list[State] = [State()]
        for known_salt, known, states in self.cache:
            length = self.common(tokens, known) if self.same_salt(salt, known_salt) else 0
            length = min(length, len(tokens) - 1, len(states) - 1)
            if length >= len(best):
                best = states[: length + 1]
        return list(best)

    def same_salt(self, one: str, other: str) -> bool:
        return one == other

    def common(self, one: list[int], other: list[int]) -> int:
        pairs = zip(one, other, strict=False)
        return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))

    async def prefill(self, run: Run) -> AsyncGenerator[SequenceEvent]:
        total = len(run.tokens)
        batch = self.spec.batch_size or BATCH
        while (done := len(run.states) - 1) < total:
            part = run.tokens[done : done + batch]
            await self.device(SECONDS_PER_TOKEN * len(part))
            for token in part:
                run.states.append(self.language.advance(run.states[-1], token))
            self.steps += 1
            self.keep(run)
            yield self.progress(len(run.states) - 1, total)

    def progress(self, done: int, total: int) -> Prefill:
        return Prefill(done, total)

    async def device(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def between_tokens(self, run: Run) -> None:
        await asyncio.sleep(0)

    def keep(self, run: Run) -> None:
        """Keep the tokens that were evaluated, unless a shift has changed them."""
        evaluated = run.tokens[: len(run.states) - 1]
        if run.prompt_tokens + run.output == len(run.tokens):
            self.cache = [entry for entry in self.cache if entry[2] is not run.states][-KEPT:]
            self.cache.append((run.request.cache_salt, evaluated, run.states))

    # ---- One token ----

    def decode(self, run: Run) -> tuple[str, str]:
        """Sample a token and evaluate it. Return the text to release, and why the sequence is over."""
        logits = self.language.logits(run.states[-1])
        mask = run.matcher.mask() if run.matcher else None
        token = run.sampler.sample(logits.copy(), mask)
        run.output += 1
        self.steps += 1
        ends = token == EOS
        if run.request.top_logprobs is not None and not ends:
            run.logprobs.append(self.logprob(run, logits, token, run.request.top_logprobs))
        if run.matcher and not ends:
            run.matcher.accept(token)
        run.tokens.append(token)
        run.states.append(self.language.advance(run.states[-1], token))
        text = "" if ends else run.text.feed(self.output(run.request, token))
        if ends and not run.text.stopped:
            text += run.text.finish()
        return text, self.reason(run, ends=ends)

    def output(self, request: SequenceRequest, token: int) -> bytes:
        special = SPECIAL.get(token, "") in request.preserved_tokens
        return self.vocabulary.bytes_of(token, special=special)

    def reason(self, run: Run, *, ends: bool) -> str:
        if run.text.stopped or ends:
            return "stop"
        return "length" if run.output >= run.request.max_tokens else ""

    def shift(self, run: Run) -> bool:
        """Drop the older half of what follows the kept tokens."""
        if not run.request.shift:
            return False
        keep = self.kept(run)
        count = (len(run.tokens) - keep) // 2
        self.drop(run, keep, count)
        return count > 0

    def kept(self, run: Run) -> int:
        keep = run.request.keep_tokens
        keep = run.prompt_tokens if keep < 0 else keep + (run.tokens[0] == BOS)
        return min(keep, len(run.tokens) - 4)

    def drop(self, run: Run, start: int, count: int) -> None:
        del run.tokens[start : start + count]
        states = [State()]
        for token in run.tokens:
            states.append(self.language.advance(states[-1], token))
        run.states = states

    def log_softmax(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        wide = logits.astype(np.float64)
        return wide - wide.max() - math.log(float(np.exp(wide - wide.max()).sum()))

    def logprob(self, run: Run, logits: NDArray[np.float32], token: int, top: int) -> TokenLogprob:
        values = self.log_softmax(logits)
        best = np.argsort(-values, kind="stable")[:top]
        return self.entry(values, token, tuple(self.entry(values, int(each)) for each in best))

    def entry(self, values: NDArray[np.float64], token: int, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
        return TokenLogprob(self.vocabulary.bytes_of(token, special=False), token, float(values[token]), top)

    def delta(self, run: Run, text: str) -> TextDelta:
        logprobs, run.logprobs = tuple(run.logprobs), []
        cached, run.unreported = run.unreported, 0
        return TextDelta(text, logprobs, cached)

    def finish(self, run: Run, reason: str) -> Finish:
        now = time.perf_counter_ns()
        return Finish(
            reason=reason,
            stop_sequence=run.text.stop_sequence,
            prompt_tokens=run.prompt_tokens,
            cached_prompt_tokens=run.cached,
            output_tokens=run.output,
            prompt_eval_ns=run.decoding - run.begun,
            eval_ns=now - run.decoding,
        )

    # ---- Tokens, steps, the end ----

    async def tokenize(self, text: str, /, *, add_special: bool, parse_special: bool) -> list[int]:
        return self.vocabulary.tokenize(text, add_special=add_special, parse_special=parse_special)

    async def detokenize(self, tokens: Sequence[int], /, *, special: bool) -> list[bytes]:
        self.vocabulary.check(tuple(tokens))
        return [self.vocabulary.bytes_of(token, special=special) for token in tokens]

    def step(self) -> int | None:
        return self.steps if self.open else None

    async def aclose(self) -> None:
        assert not self.open, "the core closes every generator first"


class TinyBackend(Backend):
    """Loads a file that begins with the header, and names its vocabulary after that."""

    formats = ("tiny",)
    model_class: type[TinyModel] = TinyModel

    async def load(self, spec: ModelSpec, report: Callable[[float], None], /) -> LoadedModel:
        try:
            content = await asyncio.to_thread(Path(spec.path).read_bytes)
        except OSError as error:
            raise InvalidRequestError(f"the model cannot be read: {error}") from error
        if not content.startswith(HEADER):
            raise InvalidRequestError("this is no tiny model")
        kind = content.removeprefix(HEADER).decode().strip()
        for step in range(5):
            report(step / 5)
            await asyncio.sleep(0.002)
        report(1.0)
        return self.model_class(spec, vocabulary(kind))


@lru_cache
def vocabulary(kind: str) -> Vocabulary:
    """Return a vocabulary. It is made once, since hundreds of mutants share it."""
    return Vocabulary(kind)


@lru_cache
def language_model(of: Vocabulary) -> LanguageModel:
    """Return the language model of a vocabulary."""
    return LanguageModel(of)
