"""One replica in virtual time: its queue, slots, steps and prefix cache.

Theory. A host decodes in steps. A step evaluates one token of each sequence that decodes, and prompt tokens of the
other sequences in the order of their arrival. Prompts alone fill the batch. Beside sequences that decode they get the
budget of puna_llama_cpp.generation.schedule, which learns from the steps as it does in a host. A step takes

    step
    + for each sequence that decodes: sequence + attention * tokens before it
    + for each prompt token: prefill + prefill_attention * tokens before it
    + for each part of a prompt beside sequences that decode: part + part_attention * tokens before it
    + for each token that is copied from slot to slot before the step: copy

seconds (the costs are measured on a real host by `python -m tools.simulate calibrate`). Steps in which nothing but
decoding happens are nearly alike, so they are simulated as one stretch until the first answer ends. A request that
arrives in between ends the stretch with the running step.
"""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from tools.simulate.prompts import PrefixCache, Prompt

from puna.runtime.routing import Costs
from puna_llama_cpp.generation.schedule import PrefillBudget

LEARNED_STEPS = 32
"""Steps of a stretch from which the budget learns. More of the same change nothing."""


@dataclass(frozen=True, slots=True)
class HostCosts:
    """The capacity of a host, and the seconds that its steps take."""

    step: float
    sequence: float
    prefill: float
    attention: float = 0.0
    prefill_attention: float = 0.0
    part: float = 0.0
    part_attention: float = 0.0
    copy: float = 0.0
    request: float = 0.0
    """Seconds that an answer comes later than its steps: for the way to the host and back."""
    batch: int = 512
    """Tokens of one step."""
    slots: int = 16
    """Sequences that run at once. Each slot keeps the KV cache of its last sequence."""
    context_length: int = 4096
    cold_start: float = 10.0
    """Seconds from the start of a replica until it has loaded the model."""

    def decode(self, sequences: int, context: float = 0) -> float:
        """Return the seconds of a step in which so many sequences decode, with so many tokens before them in all."""
        return self.step + self.sequence * sequences + self.attention * context

    def evaluate(self, begin: int, tokens: float, *, beside: bool) -> float:
        """Return what so many prompt tokens add to a step, the first of which has `begin` tokens before it.

        `beside`: other sequences decode in the step.
        """
        seconds = tokens * (self.prefill + self.prefill_attention * (begin + tokens / 2))
        return seconds + (self.part + self.part_attention * begin if beside else 0)

    def routing(self, output_tokens: float) -> Costs:
        """Return what a routing policy is told, which a server learns from earlier requests.

        output_tokens: the mean length of an answer.
        """
        return Costs(self.prefill, 2 * self.prefill, output_tokens * self.decode(self.slots))


@dataclass(slots=True, eq=False)
class Job:
    """One request on its way."""

    prompt: Prompt
    output_tokens: int
    arrived: float
    answered: Prompt | None = None
    """The prompt with its answer, if a later prompt continues it."""
    session: int = 0
    prefill: int = 0
    """Prompt tokens that are not evaluated yet."""
    cached: int = 0
    remaining: int = 0
    slot: int = 0
    first: float = math.nan
    """Time of the first token."""
    ended: float = math.nan

    @property
    def evaluated(self) -> int:
        """Prompt tokens that need no evaluation any more."""
        return self.prompt.tokens - self.prefill


@dataclass(slots=True)
class _Stretch:
    """Steps that are all alike."""

    began: float
    seconds: float
    """Of one step."""
    steps: int
    chunks: list[tuple[Job, int]]
    copying: float = 0.0
    """Seconds of copies before the step."""

    @property
    def end(self) -> float:
        return self.began + self.copying + self.seconds * self.steps


@dataclass(slots=True, eq=False)
class SimulatedReplica:
    """A replica; `advance` must be called at the time that `next_event` tells."""

    number: int
    costs: HostCosts
    cache: PrefixCache
    began: float = 0.0
    """Time from which on it serves."""
    idle_since: float = 0.0
    busy_seconds: float = 0.0
    waiting: deque[Job] = field(default_factory=deque)
    prefill_tokens: int = 0
    _budget: PrefillBudget = field(default_factory=PrefillBudget)
    _running: list[Job] = field(default_factory=list)
    _stretch: _Stretch | None = None

    @property
    def slots(self) -> int:
        """Number of sequences that it runs at once."""
        return self.costs.slots

    @property
    def taken(self) -> int:
        """Number of slots that are taken."""
        return len(self._running)

    @property
    def requests(self) -> int:
        """Number of requests that have not ended."""
        return len(self._running) + len(self.waiting)

    @property
    def next_event(self) -> float:
        """Time at which something changes; infinity: nothing runs."""
        return self._stretch.end if self._stretch else math.inf

    def submit(self, job: Job, now: float) -> None:
        """Take a request."""
        job.remaining = job.output_tokens
        job.prefill = max(job.prompt.tokens - self.cache.match(job.prompt), 1)
        self.prefill_tokens += job.prefill
        self.waiting.append(job)
        stretch = self._stretch
        if stretch is None:
            self._begin(now)
        elif len(self._running) < self.slots:
            stretch.steps = min(stretch.steps, max(math.ceil((now - stretch.began) / stretch.seconds - 1e-9), 1))

    def advance(self, now: float) -> Iterator[Job]:
        """End the stretch that ends now, begin the next one, and yield the requests that have ended."""
        stretch = self._stretch
        assert stretch is not None
        self.busy_seconds += now - stretch.began
        decoding = [job for job in self._running if not job.prefill]
        for job in decoding:
            job.remaining -= stretch.steps
        for _ in range(min(stretch.steps, LEARNED_STEPS)):
            self._budget.observe(len(decoding), sum(tokens for _, tokens in stretch.chunks), stretch.seconds)
        for job, tokens in stretch.chunks:
            job.prefill -= tokens
            self.prefill_tokens -= tokens
            if not job.prefill:
                job.first = now + self.costs.request
                job.remaining -= 1
        ended = [job for job in self._running if not job.prefill and job.remaining <= 0]
        self._running = [job for job in self._running if job.prefill or job.remaining > 0]
        for job in ended:
            job.ended = now + self.costs.request
            self.cache.leave(job.slot, job.answered or job.prompt.unique(job.output_tokens))
        self._begin(now)
        yield from ended

    def _begin(self, now: float) -> None:
        copied = 0
        while self.waiting and (taken := self.cache.take(self.waiting[0].prompt)):
            job = self.waiting.popleft()
            # An earlier request may have brought a beginning since this one came. Prompts are evaluated in turn, so a
            # beginning counts from the moment at which its first request is admitted.
            job.slot, job.cached = taken.slot, taken.reused
            copied += taken.copied
            self.prefill_tokens += job.prompt.tokens - job.cached - job.prefill
            job.prefill = job.prompt.tokens - job.cached
            self._running.append(job)
        if not self._running:
            self._stretch = None
            self.idle_since = now
            return
        decoding = [job for job in self._running if not job.prefill]
        prompts = [job for job in self._running if job.prefill]
        steps = 1 if prompts else min(job.remaining for job in decoding)
        # The answers grow during the stretch.
        context = sum(job.prompt.tokens + job.output_tokens - job.remaining + steps / 2 for job in decoding)
        seconds = self.costs.decode(len(decoding), context)
        room, chunks = self.costs.batch - len(decoding), []
        if decoding and prompts:
            room = min(room, self._budget.tokens(len(decoding), len(prompts)))
        for job in prompts:
            if room > 0:
                chunks.append((job, min(job.prefill, room)))
                room -= chunks[-1][1]
        beside = bool(decoding)
        for job, tokens in chunks:
            seconds += self.costs.evaluate(job.evaluated, tokens, beside=beside)
        self._stretch = _Stretch(now, seconds, steps, chunks, self.costs.copy * copied)
