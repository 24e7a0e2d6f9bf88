"""The work itself: requests to one server, and what came of them."""

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable

from tools.bench.answers import Outcome, Stream
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


def text(words: int, seed: int) -> str:
    """Return text of about as many tokens as words, always the same for the same seed."""
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) for _ in range(words))


async def generate(server: Server, model: str, prompt: str, tokens: int, seed: int = 1, **options: object) -> Stream:
    """Stream one answer over REST."""
    settings = {"num_predict": tokens, "seed": seed, "temperature": 0.8} | options
    return await server.generate(model, prompt, settings)


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


async def embed_one(server: Server, model: str, given: str) -> Stream:
    """Embed one text; the vector counts as the first token."""
    stream = Stream(time.perf_counter())
    await server.embed(model, [given])
    stream.arrivals.append(time.perf_counter())
    return stream


async def together(work: list[Callable[[], Awaitable[Stream]]]) -> Outcome:
    """Run streams at once."""
    began = time.perf_counter()
    streams = await asyncio.gather(*(each() for each in work))
    return Outcome(time.perf_counter() - began, list(streams))
