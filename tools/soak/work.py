"""The mix of requests over REST and gRPC, of which some are cancelled half-way."""

import asyncio
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import grpc.aio

from puna_client.v1 import chat_pb2, chat_pb2_grpc, embed_pb2, embed_pb2_grpc, generate_pb2, generate_pb2_grpc

QUESTIONS = (
    "Why is the sky blue?",
    "My name is Clara. What is my name?",
    "What is 12 plus 7?",
    "Who wrote the story of the long night, and when did the last of its readers put it down?",
    "Count to twenty.",
)
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
MOST_TOKENS = 120


@dataclass(slots=True)
class Tally:
    """The outcomes of the requests, by kind."""

    done: Counter[str] = field(default_factory=Counter)
    cancelled: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    """How often each error text was seen."""

    def usual(self, name: str) -> float:
        """Return the seconds that a kind of request takes."""
        # Recent requests only, since durations change with the load.
        return statistics.median(self.seconds.get(name, [])[-100:] or [0.1])


@dataclass(frozen=True, slots=True)
class Target:
    """The server that gets the requests."""

    url: str
    session: aiohttp.ClientSession
    channel: grpc.aio.Channel | None
    """None if the server speaks no gRPC."""
    model: str
    embedder: str


Ask = Callable[[Target, random.Random], Awaitable[None]]


async def rest(target: Target, path: str, body: dict[str, object]) -> None:
    """Send a request over REST and read the whole answer. Raises RuntimeError if the answer is an error."""
    async with target.session.post(f"{target.url}{path}", json=body) as answer:
        if answer.status != 200:
            raise RuntimeError(f"{answer.status} {(await answer.text())[:200]}")
        async for line in answer.content:
            # An error in the middle of a stream arrives with status 200.
            if line.startswith(b'{"error"'):
                raise RuntimeError(line.decode()[:200])


def options(draw: random.Random) -> dict[str, object]:
    return {"num_predict": draw.randint(1, MOST_TOKENS), "seed": draw.randint(1, 99), "temperature": 1.0}


async def rest_generate(target: Target, draw: random.Random) -> None:
    # Both forms are sent, since different code answers them.
    stream = draw.random() < 0.7
    body = {"model": target.model, "prompt": draw.choice(QUESTIONS), "stream": stream, "options": options(draw)}
    await rest(target, "/api/generate", body)


async def rest_chat(target: Target, draw: random.Random) -> None:
    asked = draw.choices(QUESTIONS, k=draw.randint(1, 3))
    # Chats with a history: their prompts share beginnings, which the prefix cache keeps.
    messages = [{"role": "user" if not turn % 2 else "assistant", "content": text} for turn, text in enumerate(asked)]
    await rest(target, "/api/chat", {"model": target.model, "messages": messages, "options": options(draw)})


async def rest_tools(target: Target, draw: random.Random) -> None:
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    body = {"model": target.model, "messages": messages, "tools": [TOOL], "options": options(draw)}
    await rest(target, "/api/chat", body)


async def rest_format(target: Target, draw: random.Random) -> None:
    body = {"model": target.model, "prompt": "Clara is 31 years old.", "format": SCHEMA, "options": options(draw)}
    await rest(target, "/api/generate", body)


async def rest_long(target: Target, draw: random.Random) -> None:
    """Send a prompt that exceeds the context and that no request has sent before."""
    # Random words: no prefix cache holds them, and the prompt fills the context.
    words = [text.split() for text in QUESTIONS]
    prompt = " ".join(draw.choice(draw.choice(words)) for _ in range(3000))
    body = {"model": target.model, "prompt": prompt, "raw": True, "options": {"num_predict": 2}}
    await rest(target, "/api/generate", body)


async def rest_embed(target: Target, draw: random.Random) -> None:
    texts = draw.choices(QUESTIONS, k=draw.randint(1, 8))
    await rest(target, "/api/embed", {"model": target.embedder, "input": texts})


async def rest_openai(target: Target, draw: random.Random) -> None:
    body = {
        "model": target.model,
        "messages": [{"role": "user", "content": draw.choice(QUESTIONS)}],
        "max_tokens": draw.randint(1, MOST_TOKENS),
        "stream": draw.random() < 0.5,
    }
    await rest(target, "/v1/chat/completions", body)


async def grpc_generate(target: Target, draw: random.Random) -> None:
    request = generate_pb2.GenerateRequest(model=target.model, text=draw.choice(QUESTIONS))
    request.options.sampling.max_output_tokens = draw.randint(1, MOST_TOKENS)
    stub = generate_pb2_grpc.GenerateServiceStub(target.channel)
    async for _ in stub.StreamGenerate(request):
        pass


async def grpc_chat(target: Target, draw: random.Random) -> None:
    request = chat_pb2.ChatRequest(model=target.model)
    request.messages.add(role="user", content=draw.choice(QUESTIONS))
    request.options.sampling.max_output_tokens = draw.randint(1, MOST_TOKENS)
    request.options.constraint.json_schema = json.dumps(SCHEMA)
    await chat_pb2_grpc.ChatServiceStub(target.channel).Chat(request)


async def grpc_embed(target: Target, draw: random.Random) -> None:
    request = embed_pb2.EmbedRequest(model=target.embedder)
    request.inputs.extend(draw.choices(QUESTIONS, k=draw.randint(1, 8)))
    await embed_pb2_grpc.EmbedServiceStub(target.channel).Embed(request)


# Without `rest_long`, which takes far longer than the others and is there to fill the caches.
REST: tuple[Ask, ...] = (rest_generate, rest_chat, rest_tools, rest_format, rest_embed, rest_openai)
GRPC: tuple[Ask, ...] = (grpc_generate, grpc_chat, grpc_embed)


async def work(
    target: Target,
    tally: Tally,
    kinds: Sequence[Ask],
    draw: random.Random,
    *,
    until: float,
    giving_up: float,
    pause: Path | None = None,
) -> None:
    """Send one request after the other until a time of the loop's clock, but none while the file `pause` exists.

    `giving_up`: the fraction of requests that are cancelled before they end.
    """
    loop = asyncio.get_running_loop()
    while loop.time() < until:
        if pause is not None and pause.exists():  # noqa: ASYNC240 (it takes a microsecond)
            await asyncio.sleep(0.5)
            continue
        ask = draw.choice(kinds)
        leaves = draw.random() < giving_up
        # Given up at a random moment of the usual duration, so that every phase of a request is hit.
        await once(ask, target, tally, draw, patience=draw.random() * tally.usual(name_of(ask)) if leaves else None)


def name_of(ask: Ask) -> str:
    """Return the name of a kind of request in the table."""
    return ask.__name__.replace("_", " ")


async def once(ask: Ask, target: Target, tally: Tally, draw: random.Random, patience: float | None = None) -> None:
    """Send one request and count its outcome. `patience`: seconds after which it is cancelled."""
    began = time.perf_counter()
    name = name_of(ask)
    try:
        await asyncio.wait_for(ask(target, draw), patience if patience is not None else 120)
    except TimeoutError:
        if patience is None:
            tally.failed[name] += 1
            tally.errors[f"{name}: no answer in two minutes"] += 1
        else:
            tally.cancelled[name] += 1
    except (RuntimeError, aiohttp.ClientError, grpc.aio.AioRpcError) as error:
        tally.failed[name] += 1
        told = error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error)
        tally.errors[f"{name}: {type(error).__name__} {(told or '')[:160]}"] += 1
        with suppress(asyncio.CancelledError):
            # A server that refuses everything would otherwise get ten thousand requests a second.
            await asyncio.sleep(0.05)
    else:
        tally.done[name] += 1
        tally.seconds.setdefault(name, []).append(time.perf_counter() - began)
