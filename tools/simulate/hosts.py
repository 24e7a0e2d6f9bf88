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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
from tools.bench.servers import Server, running
from tools.simulate.cluster import Outcome
from tools.simulate.prompts import PrefixCache, Prompt
from tools.simulate.replicas import HostCosts, Job, SimulatedReplica
from tools.simulate.workloads import Session

from puna.gguf import reader
from puna.models.convert.tokens import Kind
from puna.runtime.routing import MOST_HOLDERS, Policy, RoutedRequest
from puna_client.v1 import generate_pb2, generate_pb2_grpc, models_pb2, models_pb2_grpc, options_pb2

MODEL: Final = "simulated"
PROMPT_LENGTHS: Final = (16, 32, 48, 128, 256, 512, 1024)
LONG: Final = 2048
"""Tokens of a long prompt, behind which the costs of attention are measured."""
MESSAGE: Final = 48
"""Tokens of a message of a chat."""
ANSWER: Final = 120
"""Tokens of the answers whose steps are measured."""


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
        kinds = types.values if isinstance(types, reader.Array) and types.values else (Kind.NORMAL,) * 256
        normal, control = (
            [token for token, kind in enumerate(kinds) if kind == wanted] for wanted in (Kind.NORMAL, Kind.CONTROL)
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
        # A small model repeats itself, and Puna ends such an answer early.
        options.sampling.temperature = 1.0
        options.sampling.frequency_penalty = 1.0
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


class Calibration:
    """Measures the costs of a host's steps."""

    def __init__(self, replica: HostReplica) -> None:
        self._replica = replica
        self._draw = random.Random(1)

    async def costs(self, base: HostCosts) -> HostCosts:
        """Return the measured costs. The rest of `base` stays."""
        step, sequence, attention = _fitted(await self._steps())
        begun, prefill, prefill_attention = _fitted(await self._prompts())
        found = replace(
            base,
            step=step,
            sequence=sequence,
            prefill=prefill,
            attention=attention,
            prefill_attention=prefill_attention,
            request=max(begun - step, 0.0),
            copy=await self._copy(),
            slots=self._replica.slots,
            context_length=self._replica.context_length,
        )
        part = await self._part(found, 0)
        behind = await self._part(found, LONG // 2)
        return replace(found, part=part, part_attention=max(behind - part, 0.0) / (LONG // 2))

    async def _part(self, costs: HostCosts, before: int) -> float:
        """Return the seconds with which a simulated message beside a stream takes as long as a real one.

        before: tokens of the chat that the message continues; 0: each message begins a chat.
        """
        chat = self._tokens(before)
        if before:
            await self._replica.ask(chat, 1)
        streaming = asyncio.Event()
        stream = asyncio.create_task(self._replica.ask(self._tokens(16), 8 * ANSWER, on_first=streaming.set))
        await streaming.wait()
        measured = []
        for _ in range(8):
            message = chat + self._tokens(MESSAGE)
            answer = await self._replica.ask(message, 1)
            measured.append(answer.first - answer.began)
            if before:
                chat = message
        await stream
        # The first message takes the chat to a slot next to the stream.
        wanted = statistics.median(measured[1:])
        parts = [step / 4000 for step in range(400)]
        return min(parts, key=lambda part: abs(_message_beside_stream(replace(costs, part=part), before) - wanted))

    async def _copy(self) -> float:
        """Return the seconds that each copied token takes, from chats that share a beginning with others."""
        beginning = self._tokens(LONG)
        seconds = {}
        for continues in (True, False):
            chat = beginning + self._tokens(MESSAGE)
            await self._replica.ask(chat, 1)
            measured = []
            for _ in range(7):
                message = (chat if continues else beginning) + self._tokens(MESSAGE)
                answer = await self._replica.ask(message, 1)
                measured.append(answer.first - answer.began)
                chat = message
            seconds[continues] = statistics.median(measured)
        return max(seconds[False] - seconds[True], 0.0) / (LONG + MESSAGE)

    async def _steps(self) -> list[tuple[float, ...]]:
        """Return measured steps: what each of `step`, `sequence` and `attention` counts for, and the seconds."""
        slots, found = self._replica.slots, []
        for count, before in [*((count, 16) for count in sorted({1, 2, 4, slots // 2, slots})), (1, LONG)] * 3:
            answers = await asyncio.gather(*(self._replica.ask(self._tokens(before), ANSWER) for _ in range(count)))
            begin = max(answer.first for answer in answers)
            for answer in answers:
                later = [moment for moment in answer.arrivals if moment > begin]
                if len(later) > 20:
                    seconds = (later[-1] - later[0]) / (len(later) - 1)
                    found.append((1, count, count * (before + ANSWER / 2), seconds))
        return found

    async def _prompts(self) -> list[tuple[float, ...]]:
        """Return measured prompts: what the costs count for (`request` and `step`, then as above), and the seconds."""
        found = []
        for before in (0, LONG) * 3:
            chat = self._tokens(before)
            if before:
                await self._replica.ask(chat, 1)
            for length in PROMPT_LENGTHS:
                message = chat + self._tokens(length)
                if len(message) >= self._replica.context_length:
                    break
                answer = await self._replica.ask(message, 1)
                found.append((1, length, length * (len(chat) + length / 2), answer.first - answer.began))
                if before:
                    # A message that did not continue the last one would be measured with the copy of its beginning.
                    chat = message
        return found

    def _tokens(self, count: int) -> list[int]:
        return self._replica.vocabulary.draw(self._draw, count)


def _message_beside_stream(costs: HostCosts, before: int) -> float:
    """Return the simulated time to the first token of a message that continues a cached chat while another streams."""
    replica = SimulatedReplica(0, costs, PrefixCache(costs.slots))
    chat = Prompt().unique(before + 4 * MESSAGE) if before else Prompt()
    first = Job(chat.unique(1), 1, 0.0, chat.unique(1))
    replica.submit(first, first.arrived)
    while replica.requests:
        list(replica.advance(replica.next_event))
    replica.submit(Job(Prompt().unique(16), 8 * ANSWER, first.ended), first.ended)
    list(replica.advance(replica.next_event))
    message = Job(chat.unique(MESSAGE), 1, first.ended + 10 * costs.decode(1))
    replica.submit(message, message.arrived)
    while message.prefill:
        list(replica.advance(replica.next_event))
    return message.first - message.arrived


def _fitted(rows: list[tuple[float, ...]]) -> list[float]:
    """Return the factors with which the first numbers of each row add up to the last one, at least 1e-9."""
    table = np.array(rows)
    relative = table[:, :-1] / table[:, -1:]
    return [max(float(each), 1e-9) for each in np.linalg.lstsq(relative, np.ones(len(rows)), rcond=None)[0]]


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
            replica.cache.leave(taken.slot, job.answered or job.prompt)
        return answer

    def _prompt(self, prompt: Prompt) -> list[int]:
        """Return the tokens of a prompt. What no answer and no earlier prompt has said is drawn."""
        if prompt not in self._tokens:
            parent = prompt.parent
            before = self._prompt(parent) if parent else []
            self._tokens[prompt] = before + self._replicas[0].vocabulary.draw(self._draw, prompt.tokens - len(before))
        return self._tokens[prompt]
