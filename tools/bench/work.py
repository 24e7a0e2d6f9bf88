"""The work itself: requests to one server, and what came of them."""

import asyncio
import itertools
import json
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tools.bench.servers import Server

from puna_client.v1 import generate_pb2, generate_pb2_grpc

WORDS = tuple(
    (  # noqa: SIM905 (a list literal would be four times as long)
        "the of and to in is it you that he was for on are with as his they be at one have this from or had by hot but "
        "some what there we can out other were all your when up use word how said an each she which do their time if "
        "will "
    ).split()
)
CYCLE = tuple("".join(letters) for letters in itertools.product("bdfgklmn", "aeiou", "lmnrs"))
"""Two hundred words, which copier.gguf says in turn for ever."""


@dataclass(slots=True)
class Stream:
    """One answer as it came: seconds on one clock."""

    began: float
    arrivals: list[float] = field(default_factory=list)
    tokens: int = 0
    """Generated, as the server counts them; 0 if it does not say."""
    lines: list[bytes] = field(default_factory=list)
    """What came over REST, unread: reading takes time that the servers need."""

    @property
    def text(self) -> str:
        """The answer."""
        return "".join(json.loads(line).get("response", "") for line in self.lines)

    @property
    def first(self) -> float:
        """Seconds to the first token."""
        return self.arrivals[0] - self.began

    @property
    def gaps(self) -> list[float]:
        """Seconds between tokens."""
        return [b - a for a, b in zip(self.arrivals, self.arrivals[1:], strict=False)]


@dataclass(slots=True)
class Outcome:
    """What a round of a scenario came to."""

    seconds: float
    streams: list[Stream] = field(default_factory=list)
    inputs: int = 0
    """Texts embedded."""


def text(words: int, seed: int) -> str:
    """Return text of about as many tokens as words, always the same for the same seed."""
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) for _ in range(words))


async def generate(server: Server, model: str, prompt: str, tokens: int, seed: int = 1, **options: object) -> Stream:
    """Stream one answer over REST."""
    settings = {"num_predict": tokens, "seed": seed, "temperature": 0.8} | options
    body = {"model": model, "prompt": prompt, "raw": True, "options": settings}
    stream = Stream(time.perf_counter())
    async with server.session.post(f"{server.url}/api/generate", json=body) as answer:
        if answer.status != 200:
            raise RuntimeError(f"{server.name}: {await answer.text()}")
        async for line in answer.content:
            stream.arrivals.append(time.perf_counter())
            stream.lines.append(line)
            if b'"done":true' in line:
                stream.tokens = json.loads(line).get("eval_count", 0)
    return stream


async def generate_grpc(server: Server, model: str, prompt: str, tokens: int, seed: int = 1) -> Stream:
    """Stream one answer over gRPC."""
    request = generate_pb2.GenerateRequest(model=model, text=prompt, raw=True)
    request.options.sampling.max_output_tokens = tokens
    request.options.sampling.seed = seed
    stream = Stream(time.perf_counter())
    async with server.channel() as channel:
        async for answer in generate_pb2_grpc.GenerateServiceStub(channel).StreamGenerate(
            request, metadata=server.metadata
        ):
            stream.arrivals += [time.perf_counter()] * (len(answer.deltas) or answer.HasField("done"))
            if answer.HasField("done"):
                stream.tokens = answer.done.finish.usage.output_tokens
    return stream


async def calls(server: Server, model: str, count: int, seed: int) -> list[Stream]:
    """Make unary calls over one gRPC channel, one after the other; an answer counts as one token."""
    request = generate_pb2.GenerateRequest(model=model, text=text(24, seed), raw=True)
    request.options.sampling.max_output_tokens = 2
    streams = []
    async with server.channel() as channel:
        stub = generate_pb2_grpc.GenerateServiceStub(channel)
        for _ in range(count):
            stream = Stream(time.perf_counter())
            await stub.Generate(request, metadata=server.metadata)
            stream.arrivals.append(time.perf_counter())
            streams.append(stream)
    return streams


async def embed(server: Server, model: str, inputs: list[str]) -> int:
    """Embed texts; return how many vectors came back."""
    async with server.session.post(f"{server.url}/api/embed", json={"model": model, "input": inputs}) as answer:
        if answer.status != 200:
            raise RuntimeError(f"{server.name}: {await answer.text()}")
        return len((await answer.json())["embeddings"])


async def embed_one(server: Server, model: str, given: str) -> Stream:
    """Embed one text; the vector counts as the first token."""
    stream = Stream(time.perf_counter())
    await embed(server, model, [given])
    stream.arrivals.append(time.perf_counter())
    return stream


async def unload(server: Server, model: str) -> None:
    """Have a model leave the memory, and wait until it has."""
    async with server.session.post(f"{server.url}/api/generate", json={"model": model, "keep_alive": 0}) as answer:
        answer.raise_for_status()
    for _ in range(300):
        async with server.session.get(f"{server.url}/api/ps") as answer:
            if not (await answer.json())["models"]:
                return
        await asyncio.sleep(0.1)
    raise RuntimeError(f"{server.name} does not unload {model}")


async def together(work: list[Callable[[], Awaitable[Stream]]]) -> Outcome:
    """Run streams at once."""
    began = time.perf_counter()
    streams = await asyncio.gather(*(each() for each in work))
    return Outcome(time.perf_counter() - began, list(streams))
