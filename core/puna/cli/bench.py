"""The command `bench`: how fast this machine runs a model, with one stream and with several at once.

Each stream has a prompt of its own, so that no prefix cache helps. A model may end an answer before the requested
number of tokens; the rates count what was written. Prefill lasts from the start until every stream has its first token,
and decode from then on, so that neither slows the other down.
"""

import asyncio
import json
import random
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final, TextIO

from puna.cli import terminal
from puna.cli.client import connected
from puna.cli.errors import CommandError
from puna.cli.tables import table
from puna.settings import Settings
from puna_client.v1 import generate_pb2, generate_pb2_grpc, models_pb2, models_pb2_grpc

WORDS: Final = ("river", "stone", "lamp", "garden", "seven", "quiet", "paper", "north", "music", "glass", "road")
WORDS_PER_TOKEN: Final = 0.5
"""Words for each token of a prompt: few enough that a vocabulary of any kind stays below the context."""
BAR: Final = 30
MOST_STREAMS: Final = 256


@dataclass(frozen=True, slots=True)
class Stream:
    """One answer: seconds on one clock, and counts."""

    arrivals: tuple[float, ...]
    """When each delta came; not empty."""
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Result:
    """The measurements of several streams at once. Rates are in tokens per second, over all streams."""

    streams: int
    prefill: float
    decode: float
    first_seconds: float
    """Median time to the first token."""
    prompt_tokens: int
    output_tokens: int


def result(began: float, streams: Sequence[Stream]) -> Result:
    """Return the rates of streams that began together."""
    prompt, output = sum(each.prompt_tokens for each in streams), sum(each.output_tokens for each in streams)
    firsts = sorted(each.arrivals[0] for each in streams)
    later = [moment for each in streams for moment in each.arrivals if moment > firsts[-1]]
    return Result(
        streams=len(streams),
        prefill=prompt / max(firsts[-1] - began, 1e-9),
        decode=len(later) / max(max(later) - firsts[-1], 1e-9) if later else 0.0,
        first_seconds=firsts[len(firsts) // 2] - began,
        prompt_tokens=prompt,
        output_tokens=output,
    )


def counts(text: str) -> list[int]:
    """Read the numbers of streams, such as "1,4,16". Raises CommandError."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdigit() and 0 < int(word) <= MOST_STREAMS for word in words):
        raise CommandError(f"--streams is {text!r}; it takes numbers from 1 to {MOST_STREAMS}, such as 1,4,16")
    return [int(word) for word in words]


def picture(results: Sequence[Result], stream: TextIO, columns: int) -> str:
    """Return the rates as bars that fit into the columns, in a character that the stream can show."""
    block = "█" if terminal.can_show("█", stream) else "#"
    rates = [(name, each.streams, getattr(each, name)) for name in ("prefill", "decode") for each in results]
    texts = [f"{rate:.1f} tokens/s" for _, _, rate in rates]
    # Name, number of streams, and the blanks between the parts take 16 columns.
    bar = max(min(BAR, columns - 16 - max(map(len, texts)) - 1), 1)
    most = {name: max(rate for other, _, rate in rates if other == name) for name, _, _ in rates}
    lines: list[str] = []
    for (name, streams, rate), text in zip(rates, texts, strict=True):
        if lines and not lines[-1].startswith(name):
            lines.append("")
        drawn = block * (max(round(rate / most[name] * bar), 1) if rate else 0)
        lines.append(f"{name:7} {streams:>4}  {drawn:{bar}}  {text}")
    return "\n".join(lines)


async def bench(
    settings: Settings, model: str, *, streams: str, prompt_tokens: int, output_tokens: int, as_json: bool
) -> None:
    """Measure a model and print the rates. Raises CommandError."""
    wanted = counts(streams)
    if prompt_tokens < 1 or output_tokens < 2:
        raise CommandError("--prompt-tokens must be at least 1, and --output-tokens at least 2")
    results = []
    async with connected(settings) as channel:
        stub = generate_pb2_grpc.GenerateServiceStub(channel)
        request = models_pb2.LoadModelRequest(name=model)
        await models_pb2_grpc.ModelsServiceStub(channel).LoadModel(request)
        for count in (1, *wanted):
            began = time.perf_counter()
            asked = [_request(model, prompt_tokens, output_tokens) for _ in range(count)]
            done = await asyncio.gather(*(_run(stub, each) for each in asked))
            results.append(result(began, done))
            if not as_json and len(results) > 1:
                print(f"{count} at once: measured", file=sys.stderr, flush=True)
    # The first round warms the caches of processor and disk.
    results = results[1:]
    if as_json:
        print(json.dumps([asdict(each) for each in results], indent=2))
        return
    rows = [
        (str(each.streams), f"{each.prefill:.1f}", f"{each.decode:.1f}", f"{each.first_seconds * 1000:.0f} ms")
        for each in results
    ]
    print(table(("STREAMS", "PREFILL TOKENS/S", "DECODE TOKENS/S", "FIRST TOKEN"), rows))
    print()
    print(picture(results, sys.stdout, terminal.width()))


def _request(model: str, prompt_tokens: int, output_tokens: int) -> generate_pb2.GenerateRequest:
    draw = random.Random(secrets.randbits(64))
    words = [draw.choice(WORDS) for _ in range(max(int(prompt_tokens * WORDS_PER_TOKEN), 1))]
    request = generate_pb2.GenerateRequest(model=model, text=" ".join(words), raw=True)
    request.options.sampling.max_output_tokens = output_tokens
    request.options.sampling.seed = draw.randrange(2**31)
    request.options.cache_salt = secrets.token_hex(8)
    request.options.omit_progress = True
    return request


async def _run(stub: "generate_pb2_grpc.GenerateServiceAsyncStub", request: generate_pb2.GenerateRequest) -> Stream:
    arrivals: list[float] = []
    async for message in stub.StreamGenerate(request):
        arrivals += [time.perf_counter()] * len(message.deltas)
        if message.HasField("done"):
            usage = message.done.finish.usage
            return Stream(tuple(arrivals) or (time.perf_counter(),), usage.prompt_tokens, usage.output_tokens)
    raise CommandError("the answer has no end")
