"""Real Punas as replicas: what their steps cost, and the same workloads played on them in real time.

Each server is a replica with one model, and this program is their router. It keeps the same records of replicas as the
simulator does: requests, prompt tokens to evaluate, and the prompts that a replica's cache ought to hold.
"""

import asyncio
import random
import secrets
import statistics
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tools.bench.servers import Server, running
from tools.bench.work import WORDS
from tools.simulate.cluster import Outcome
from tools.simulate.prompts import PrefixCache, Prompt
from tools.simulate.replicas import HostCosts, Job
from tools.simulate.workloads import Session

from puna.runtime.routing import MOST_HOLDERS, Policy, RoutedRequest
from puna_client.v1 import generate_pb2, generate_pb2_grpc, models_pb2, models_pb2_grpc, options_pb2

MODEL: Final = "simulated"
PROMPT_LENGTHS: Final = (128, 512, 1024, 1536)


@dataclass(slots=True, eq=False)
class HostReplica:
    """A server with the model, and what the router knows of it."""

    number: int
    slots: int
    stub: "generate_pb2_grpc.GenerateServiceAsyncStub"
    cache: PrefixCache
    context_length: int
    models: "models_pb2_grpc.ModelsServiceAsyncStub"
    tokens_per_word: float = 1.0
    requests: int = 0
    prefill_tokens: int = 0

    async def ask(
        self,
        text: str,
        output_tokens: int,
        context: Sequence[int] = (),
        *,
        salt: str = "",
        session: str = "",
        on_first: Callable[[], None] = lambda: None,
    ) -> "Answer":
        """Send a prompt, and wait for the whole answer.

        context: the tokens that the prompt continues. salt: a request with another one shares no cache with this one.
        session: the requests of a conversation share it.
        """
        options = options_pb2.RequestOptions(cache_salt=salt, omit_progress=True)
        options.sampling.max_output_tokens = output_tokens
        # A small model that draws greedily repeats itself, and Puna ends such an answer early.
        options.sampling.temperature = 1.0
        options.runtime.context_length = self.context_length
        request = generate_pb2.GenerateRequest(model=MODEL, text=text, options=options)
        if context:
            request.context.ids.extend(context)
        answer = Answer(time.perf_counter())
        metadata = (("x-session-id", session),) if session else ()
        async for message in self.stub.StreamGenerate(request, metadata=metadata):
            if not answer.arrivals:
                on_first()
            answer.arrivals += [time.perf_counter()] * len(message.deltas)
            if message.HasField("done"):
                usage = message.done.finish.usage
                answer.prompt_tokens, answer.cached = usage.prompt_tokens, usage.cached_prompt_tokens
                answer.context = list(message.done.context.ids)
        answer.ended = time.perf_counter()
        return answer


@dataclass(slots=True)
class Answer:
    """One answer: seconds on one clock, and counts."""

    began: float
    arrivals: list[float] = field(default_factory=list)
    ended: float = 0.0
    prompt_tokens: int = 0
    cached: int = 0
    context: list[int] = field(default_factory=list)

    @property
    def first(self) -> float:
        """Time of the first token."""
        return self.arrivals[0] if self.arrivals else self.ended


@asynccontextmanager
async def replicas(
    command: str, model: Path, folder: Path, *, count: int, slots: int, context_length: int
) -> AsyncGenerator[list[HostReplica]]:
    """Start servers that have the model loaded."""
    async with AsyncExitStack() as stack:
        found = []
        for number in range(count):
            home = folder / str(number)
            home.mkdir()
            settings = f"OLLAMA_NUM_PARALLEL={slots} OLLAMA_KEEP_ALIVE=-1"
            server: Server = await stack.enter_async_context(
                running(f"replica {number}", f"{settings} {command}", home)
            )
            await server.create(MODEL, model)
            channel = await stack.enter_async_context(server.channel())
            cache = PrefixCache(slots * context_length)
            stub = generate_pb2_grpc.GenerateServiceStub(channel)
            models = models_pb2_grpc.ModelsServiceStub(channel)
            found.append(HostReplica(number, slots, stub, cache, context_length, models))
            answer = await found[-1].ask(words(random.Random(2), 400), 2)
            found[-1].tokens_per_word = answer.prompt_tokens / 400
        yield found


@asynccontextmanager
async def routed(
    command: str, model: Path, folder: Path, *, routing: str, count: int, slots: int, context_length: int
) -> AsyncGenerator[list[HostReplica]]:
    """Start one server whose model has so many replicas, and wait until all of them have loaded it."""
    starting = replicas(
        f"PUNA_REPLICAS={count} PUNA_ROUTING={routing} {command}",
        model,
        folder,
        count=1,
        slots=slots,
        context_length=context_length,
    )
    async with starting as found:
        request = models_pb2.ListLoadedModelsRequest()
        for _ in range(3000):
            if len((await found[0].models.ListLoadedModels(request)).models[0].replicas) == count:
                break
            await asyncio.sleep(0.1)
        else:
            raise TimeoutError(f"the server has not started {count} replicas")
        yield found


def words(draw: random.Random, count: float) -> str:
    """Return a text of so many common words."""
    return "".join(f" {draw.choice(WORDS)}" for _ in range(max(round(count), 1)))


async def calibrate(replica: HostReplica, costs: HostCosts) -> HostCosts:
    """Measure the costs of a host's steps. The rest of `costs` stays."""
    draw, points = random.Random(1), []
    for _ in range(3):
        for length in PROMPT_LENGTHS:
            answer = await replica.ask(words(draw, length), 1)
            points.append((answer.prompt_tokens - answer.cached, answer.first - answer.began))
    prefill = statistics.linear_regression(*zip(*points, strict=True)).slope
    steps = []
    for _ in range(3):
        for count in sorted({1, 2, replica.slots // 2 or 1, replica.slots}):
            answers = await asyncio.gather(*(replica.ask(words(draw, 16), 120) for _ in range(count)))
            begin = max(answer.first for answer in answers)
            for answer in answers:
                later = [moment for moment in answer.arrivals if moment > begin]
                if len(later) > 20:
                    steps.append((count, (later[-1] - later[0]) / (len(later) - 1)))
    line = statistics.linear_regression(*zip(*steps, strict=True))
    return HostCosts(
        step=max(line.intercept, 1e-6),
        sequence=max(line.slope, 0.0),
        prefill=prefill,
        batch=costs.batch,
        slots=replica.slots,
        cache_tokens=replica.slots * replica.context_length,
        cold_start=costs.cold_start,
    )


class Player:
    """Plays sessions on replicas, which a policy chooses."""

    def __init__(self, found: Sequence[HostReplica], policy: Policy) -> None:
        self._replicas, self._policy = found, policy
        self._jobs: list[Job] = []
        self._texts: dict[Prompt, str] = {}
        self._salt = secrets.token_hex(8)
        self._draw = random.Random(self._salt)

    async def run(self, sessions: Sequence[tuple[float, Session]]) -> Outcome:
        """Play all sessions to their ends."""
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number, (moment, session) in enumerate(sessions):
                group.create_task(self._session(number, began + moment, session))
        seconds = time.perf_counter() - began - sessions[0][0]
        return Outcome(self._jobs, seconds, [seconds] * len(self._replicas), 0, seconds * len(self._replicas))

    async def _session(self, number: int, moment: float, session: Session) -> None:
        await asyncio.sleep(moment - time.perf_counter())
        context: list[int] = []
        reached: Prompt | None = None
        for turn in session:
            await asyncio.sleep(turn.pause)
            job = Job(turn.prompt, turn.output_tokens, time.perf_counter(), turn.answered, number)
            answer = await self._ask(job, self._text(turn.prompt, reached), context)
            job.first, job.cached, job.ended = answer.first, answer.cached, answer.ended
            self._jobs.append(job)
            context, reached = answer.context, turn.answered

    async def _ask(self, job: Job, text: str, context: Sequence[int]) -> Answer:
        holders = sorted(
            ((index, held) for index, each in enumerate(self._replicas) if (held := each.cache.match(job.prompt))),
            key=lambda pair: -pair[1],
        )
        request = RoutedRequest(job.prompt.tokens, job.session, tuple(holders[:MOST_HOLDERS]))
        replica = self._replicas[self._policy.choose(request, self._replicas)]
        prefill = job.prompt.tokens - replica.cache.match(job.prompt)
        replica.cache.use(job.prompt)

        def on_first() -> None:
            replica.prefill_tokens -= prefill

        replica.requests += 1
        replica.prefill_tokens += prefill
        session = f"{self._salt}-{job.session}"
        answer = await replica.ask(
            text, job.output_tokens, context, salt=self._salt, session=session, on_first=on_first
        )
        replica.requests -= 1
        replica.cache.use(job.answered or job.prompt)
        return answer

    def _text(self, prompt: Prompt, reached: Prompt | None) -> str:
        """Return the text between a prompt that the context holds and another one that continues it."""
        parts = []
        node: Prompt | None = prompt
        while node is not None and node.parent is not None and node is not reached:
            if node not in self._texts:
                self._texts[node] = words(
                    self._draw, (node.tokens - node.parent.tokens) / self._replicas[0].tokens_per_word
                )
            parts.append(self._texts[node])
            node = node.parent
        return "".join(reversed(parts))
