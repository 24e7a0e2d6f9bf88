"""Real Punas as replicas: what their steps cost, and the same workloads played on them in real time.

Each server is a replica with one model, and this program is their router. It keeps the same records of replicas as the
simulator does: requests, prompt tokens to evaluate, and the prompts that a replica's slots ought to hold.

Prompts are token ids, drawn at random from the model's vocabulary, so that they have exactly the simulated lengths. The
answers are sampled without control tokens, so that none ends early, and come with the ids of their tokens, so that a
later turn continues exactly what the cache holds. The text of an answer, tokenized again, would have other tokens now
and then.
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
from tools.simulate.cluster import Outcome
from tools.simulate.prompts import PrefixCache, Prompt
from tools.simulate.replicas import HostCosts, Job
from tools.simulate.workloads import Session

from puna.gguf import reader
from puna.runtime.routing import MOST_HOLDERS, Policy, RoutedRequest
from puna_client.v1 import generate_pb2, generate_pb2_grpc, models_pb2, models_pb2_grpc, options_pb2

MODEL: Final = "simulated"
PROMPT_LENGTHS: Final = (128, 512, 1024, 1536)
NORMAL, CONTROL = 1, 3
"""Types of tokens in GGUF files."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens of a model."""

    normal: Sequence[int]
    """Ids of the tokens that stand for text."""
    control: Sequence[int]

    @classmethod
    def read(cls, model: Path) -> "Vocabulary":
        """Read the vocabulary of a GGUF file. A file without types of tokens has 256 ids."""
        types = reader.read(model, arrays=True).get("tokenizer.ggml.token_type")
        kinds = types.values if isinstance(types, reader.Array) and types.values else (NORMAL,) * 256
        normal, control = (
            [token for token, kind in enumerate(kinds) if kind == wanted] for wanted in (NORMAL, CONTROL)
        )
        return cls(normal, control)

    def draw(self, draw: random.Random, count: int) -> list[int]:
        """Return so many tokens."""
        return draw.choices(self.normal, k=count)


@dataclass(slots=True, eq=False)
class HostReplica:
    """A server with the model, and what the router knows of it."""

    number: int
    slots: int
    stub: "generate_pb2_grpc.GenerateServiceAsyncStub"
    cache: PrefixCache
    context_length: int
    models: "models_pb2_grpc.ModelsServiceAsyncStub"
    vocabulary: Vocabulary
    requests: int = 0
    prefill_tokens: int = 0

    async def ask(
        self,
        prompt: Sequence[int],
        output_tokens: int,
        *,
        salt: str = "",
        session: str = "",
        on_first: Callable[[], None] = lambda: None,
    ) -> "Answer":
        """Send a prompt, and wait for the whole answer, which has exactly `output_tokens`.

        salt: a request with another one shares no cache with this one. session: the requests of a conversation share
        it.
        """
        options = options_pb2.RequestOptions(cache_salt=salt, omit_progress=True, logprobs=True)
        options.sampling.max_output_tokens = output_tokens
        # A small model that draws greedily repeats itself, and Puna ends such an answer early.
        options.sampling.temperature = 1.0
        for control in self.vocabulary.control:
            options.sampling.logit_bias[control] = -1000.0
        options.runtime.context_length = self.context_length
        request = generate_pb2.GenerateRequest(model=MODEL, raw=True, options=options)
        request.token_ids.ids.extend(prompt)
        answer = Answer(time.perf_counter())
        metadata = (("x-session-id", session),) if session else ()
        async for message in self.stub.StreamGenerate(request, metadata=metadata):
            if not answer.arrivals:
                on_first()
            answer.arrivals += [time.perf_counter()] * len(message.deltas)
            answer.tokens += [token.token_id for delta in message.deltas for token in delta.logprobs]
            if message.HasField("done"):
                answer.cached = message.done.finish.usage.cached_prompt_tokens
        answer.ended = time.perf_counter()
        return answer


@dataclass(slots=True)
class Answer:
    """One answer: seconds on one clock, and tokens."""

    began: float
    arrivals: list[float] = field(default_factory=list)
    ended: float = 0.0
    cached: int = 0
    """Prompt tokens that were not evaluated."""
    tokens: list[int] = field(default_factory=list)

    @property
    def first(self) -> float:
        """Time of the first token."""
        return self.arrivals[0] if self.arrivals else self.ended


@asynccontextmanager
async def replicas(
    command: str, model: Path, folder: Path, *, count: int, slots: int, context_length: int
) -> AsyncGenerator[list[HostReplica]]:
    """Start servers that have the model loaded."""
    vocabulary = Vocabulary.read(model)
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
            cache = PrefixCache(slots)
            stub = generate_pb2_grpc.GenerateServiceStub(channel)
            models = models_pb2_grpc.ModelsServiceStub(channel)
            found.append(HostReplica(number, slots, stub, cache, context_length, models, vocabulary))
            await found[-1].ask(vocabulary.draw(random.Random(2), 400), 2)
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


async def calibrate(replica: HostReplica, costs: HostCosts) -> HostCosts:
    """Measure the costs of a host's steps. The rest of `costs` stays."""
    draw, points = random.Random(1), []

    def tokens(count: int) -> list[int]:
        return replica.vocabulary.draw(draw, count)

    for _ in range(3):
        for length in PROMPT_LENGTHS:
            answer = await replica.ask(tokens(length), 1)
            points.append((length - answer.cached, answer.first - answer.began))
    prefill = statistics.linear_regression(*zip(*points, strict=True)).slope
    steps = []
    for _ in range(3):
        for count in sorted({1, 2, replica.slots // 2 or 1, replica.slots}):
            answers = await asyncio.gather(*(replica.ask(tokens(16), 120) for _ in range(count)))
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
        context_length=replica.context_length,
        cold_start=costs.cold_start,
    )


class Player:
    """Plays sessions on replicas, which a policy chooses."""

    def __init__(self, found: Sequence[HostReplica], policy: Policy) -> None:
        self._replicas, self._policy = found, policy
        self._jobs: list[Job] = []
        self._tokens: dict[Prompt, list[int]] = {}
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
        for turn in session:
            await asyncio.sleep(turn.pause)
            job = Job(turn.prompt, turn.output_tokens, time.perf_counter(), turn.answered, number)
            prompt = self._prompt(turn.prompt)
            answer = await self._ask(job, prompt)
            job.first, job.cached, job.ended = answer.first, answer.cached, answer.ended
            self._jobs.append(job)
            if turn.answered:
                self._tokens[turn.answered] = prompt + answer.tokens

    async def _ask(self, job: Job, prompt: Sequence[int]) -> Answer:
        holders = sorted(
            ((index, held) for index, each in enumerate(self._replicas) if (held := each.cache.match(job.prompt))),
            key=lambda pair: -pair[1],
        )
        request = RoutedRequest(job.prompt.tokens, job.session, tuple(holders[:MOST_HOLDERS]))
        replica = self._replicas[self._policy.choose(request, self._replicas)]
        prefill = job.prompt.tokens - replica.cache.match(job.prompt)
        # None: all slots are taken, and the request waits at the replica.
        taken = replica.cache.take(job.prompt)

        def on_first() -> None:
            replica.prefill_tokens -= prefill

        replica.requests += 1
        replica.prefill_tokens += prefill
        session = f"{self._salt}-{job.session}"
        answer = await replica.ask(prompt, job.output_tokens, salt=self._salt, session=session, on_first=on_first)
        replica.requests -= 1
        if taken:
            replica.cache.leave(taken[0], job.answered or job.prompt)
        return answer

    def _prompt(self, prompt: Prompt) -> list[int]:
        """Return the tokens of a prompt. What no answer and no earlier prompt has said is drawn."""
        if prompt not in self._tokens:
            parent = prompt.parent
            before = self._prompt(parent) if parent else []
            self._tokens[prompt] = before + self._replicas[0].vocabulary.draw(self._draw, prompt.tokens - len(before))
        return self._tokens[prompt]
