"""What is asked: one function a scenario, each asks one server once and returns an Outcome."""

import asyncio
import itertools
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tools.bench.agent import CALLS, OPENERS, WANDER
from tools.bench.answers import Outcome, Stream
from tools.bench.servers import Server
from tools.bench.work import CYCLE, calls, embed_one, generate, generate_grpc, text, together

Ask = Callable[[Server, str, int], Awaitable[Outcome]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A kind of load."""

    name: str
    model: str
    """The model it runs on: name of a file of make_bench_models.py."""
    ask: Ask
    figures: tuple[str, ...]
    """Which figures of report.FIGURES tell something here."""
    grpc: bool = False
    """Whether it speaks gRPC, so that only servers that do are asked."""
    raw: int = 0
    """How many tokens one stream writes, where llama.cpp's bare loop can be asked the same; otherwise 0."""
    unloads: bool = False
    """Whether the model is dropped from memory meanwhile, so that only servers that can do it are asked."""
    prepare: Callable[[Server, str], Awaitable[object]] | None = None
    """What is done once to each server before."""


async def streams(
    server: Server, model: str, turn: int, *, count: int, tokens: int, words: int = 24, first: int = 0
) -> Outcome:
    """Let `count` clients stream at once, each with a prompt of its own.

    `first` sets the prompts apart from those of other scenarios with the model. A server that keeps its answers could
    draft from them.
    """
    numbers = range(first + 1000 * turn, first + 1000 * turn + count)
    return await together([partial(generate, server, model, text(words, n), tokens, seed=n) for n in numbers])


async def grpc_streams(server: Server, model: str, turn: int, *, count: int, tokens: int, first: int) -> Outcome:
    """Do the same over gRPC."""
    numbers = range(first + 1000 * turn, first + 1000 * turn + count)
    return await together([partial(generate_grpc, server, model, text(24, n), tokens, seed=n) for n in numbers])


async def raw_one(path: Path, tokens: int, turn: int) -> Outcome:
    """Ask llama.cpp's bare loop for one stream, in a process of its own that has ended afterwards."""
    command = ["-m", "tools.bench.raw", str(path), "--json", "--tokens", str(tokens), "--prompt", text(24, 1000 * turn)]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    told, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"tools.bench.raw ended with status {process.returncode}")
    arrivals = json.loads(told)["arrivals"]
    return Outcome(arrivals[-1], [Stream(0.0, arrivals, len(arrivals))])


async def fill_cache(server: Server, model: str) -> None:
    """Hold ten conversations of 600 tokens, so that the cache is full of prompts that never come again."""
    await together([partial(generate, server, model, text(600, 6_000_000 + i), 1) for i in range(10)])


async def cold(server: Server, model: str, turn: int) -> Outcome:
    """The first token of a model that has to be loaded."""
    await server.unload(model)
    return await together([partial(generate, server, model, text(24, 5_000_000 + turn), 1)])


async def prefill(server: Server, model: str, turn: int, *, words: int) -> Outcome:
    """A prompt that has nothing in common with others is evaluated, and one token is written."""
    return await together([partial(generate, server, model, text(words, 4_000_000 + turn), 1)])


async def chat(server: Server, model: str, turn: int) -> Outcome:
    """A chat of three turns with a system message, by the model's own template."""
    messages = [{"role": "system", "content": f"You are a helpful assistant. Talk about this: {text(40, turn)}."}]
    began = time.perf_counter()
    answers = []
    for number, question in enumerate(QUESTIONS):
        messages.append({"role": "user", "content": question})
        settings = {"num_predict": 64, "seed": 10 * turn + number, "temperature": 0.8}
        answers.append(await server.chat(model, messages, settings))
        messages.append({"role": "assistant", "content": text(40, 10 * turn + number)})
    return Outcome(time.perf_counter() - began, answers)


async def shared_prefix(server: Server, model: str, turn: int) -> Outcome:
    """Eight prompts that share their first 620 tokens arrive together; 16 tokens each."""
    common = text(620, 7_000_000 + turn)
    return await together([partial(generate, server, model, f"{common} {text(8, i)}", 16, seed=i) for i in range(8)])


async def second_turn(server: Server, model: str, turn: int) -> Outcome:
    """A chat's second turn: the first one's prompt and answer are its prefix. Only the second is counted."""
    first = text(300, 9_000_000 + turn)
    await generate(server, model, first, 32)
    return await together([partial(generate, server, model, f"{first} {text(20, turn)}", 32)])


async def resumed(server: Server, model: str, turn: int) -> Outcome:
    """A chat of 2,000 tokens goes on after its model was unloaded. The load itself is not counted."""
    first = text(1900, 9_500_000 + turn)
    await generate(server, model, first, 1)
    await server.unload(model)
    await generate(server, model, text(8, turn), 1)
    return await together([partial(generate, server, model, f"{first} {text(20, turn)}", 1)])


async def long_prompt_beside(server: Server, model: str, turn: int) -> Outcome:
    """Seven streams run; a prompt of 2,000 tokens joins. Only the seven are counted."""

    async def late() -> Stream:
        await asyncio.sleep(1.0)
        return await generate(server, model, text(1900, 8_000_000 + turn), 8)

    newcomer = asyncio.ensure_future(late())
    outcome = await streams(server, model, turn, count=7, tokens=160)
    await newcomer
    return outcome


async def beside_prompts(
    server: Server, model: str, turn: int, *, prompt: Callable[[int, int], str], first: int
) -> Outcome:
    """Seven streams run while an eighth client sends one prompt after the other. Only the seven are counted.

    `prompt` returns the text of a prompt for the turn and the number of the prompt in it.
    """

    async def eighth() -> None:
        for number in itertools.count():
            await generate(server, model, prompt(turn, number), 1)

    prompts = asyncio.ensure_future(eighth())
    try:
        outcome = await streams(server, model, turn, count=7, tokens=160, first=first)
        if prompts.done():
            prompts.result()  # only an error ends them
    finally:
        prompts.cancel()
        await asyncio.wait([prompts])
    return outcome


def evicting(turn: int, number: int) -> str:
    """Return a prompt that has nothing in common with others, so that it evicts a sequence from a full cache."""
    return text(1000, 10_000_000 + 1000 * turn + number)


def coming_back(turn: int, number: int) -> str:
    """Return a prompt that came before and has been evicted since, with a new end."""
    return f"{text(1000, 11_000_000 + number % _ROUNDABOUT)} {text(8, 1000 * turn + number)}"


async def fill_slots(server: Server, model: str, *, prompt: Callable[[int, int], str]) -> None:
    """Let a cache of sixteen sequences evict the first ones."""
    for number in range(_ROUNDABOUT):
        await generate(server, model, prompt(0, number), 1)


async def copying(server: Server, model: str, turn: int) -> Outcome:
    """A text that copies its prompt word for word, temperature 0. It is known, so a wrong one is an error."""
    at = 37 * turn % len(CYCLE)
    words = CYCLE[at:] + CYCLE[:at]
    outcome = await together(
        [partial(generate, server, model, "".join(f" {word}" for word in words), _COPIED, temperature=0.0)]
    )
    written, right = outcome.streams[0].text, "".join(f" {words[i % len(words)]}" for i in range(_COPIED))
    if written != right:
        raise RuntimeError(f"{server.name} wrote {written!r} instead of {right!r}")
    return outcome


async def agent(server: Server, model: str, turn: int) -> Outcome:
    """A session of an agent that calls tools in turn. Earlier sessions made other calls of the same tools."""
    draw = random.Random(turn)
    prompt = f" {text(100, turn)}"
    began = time.perf_counter()
    answers = []
    for call in range(CALLS):
        prompt += f" {draw.choice(OPENERS)}"
        answers.append(await generate(server, model, prompt, _LONG, seed=1000 * turn + call))
        prompt += f"{answers[-1].text} {text(30, 1000 * turn + call)}"
    return Outcome(time.perf_counter() - began, answers)


async def wander(server: Server, model: str, turn: int) -> Outcome:
    """One client streams the text that is hardest to draft: what repeats is short, and goes on by chance."""
    begin = list(WANDER)[turn % len(WANDER)]
    return await together([partial(generate, server, model, f" {text(24, turn)} {begin}", 2 * _LONG, seed=turn)])


async def requests(server: Server, model: str, turn: int) -> Outcome:
    """Eight clients ask 25 times each, one request after the other on a connection that stays open."""

    async def client(number: int) -> list[Stream]:
        given = text(24, 1000 * turn + number)
        return [await generate(server, model, given, 2) for _ in range(25)]

    return await answered([client(number) for number in range(8)])


async def grpc_requests(server: Server, model: str, turn: int) -> Outcome:
    """Do the same over gRPC."""
    return await answered([calls(server, model, 25, 1000 * turn + number) for number in range(8)])


async def answered(clients: list[Awaitable[list[Stream]]]) -> Outcome:
    """Run clients at once."""
    began = time.perf_counter()
    each = await asyncio.gather(*clients)
    return Outcome(time.perf_counter() - began, [stream for streams in each for stream in streams])


async def one_input(server: Server, model: str, turn: int) -> Outcome:
    """One client embeds texts, one a request and one after the other."""
    began = time.perf_counter()
    count = sum([await server.embed(model, [text(24, 600_000 + 128 * turn + i)]) for i in range(128)])
    return Outcome(time.perf_counter() - began, inputs=count)


async def single_inputs(server: Server, model: str, turn: int) -> Outcome:
    """Sixteen clients embed eight texts each, one a request."""

    async def client(number: int) -> int:
        return sum([await server.embed(model, [text(24, 10_000 * turn + 8 * number + i)]) for i in range(8)])

    began = time.perf_counter()
    counts = await asyncio.gather(*(client(number) for number in range(16)))
    return Outcome(time.perf_counter() - began, inputs=sum(counts))


async def lists(server: Server, model: str, turn: int) -> Outcome:
    """One client embeds lists of 64 texts."""
    began = time.perf_counter()
    count = sum(
        [await server.embed(model, [text(24, 100_000 * turn + 64 * i + j) for j in range(64)]) for i in range(2)]
    )
    return Outcome(time.perf_counter() - began, inputs=count)


async def short_beside_long(server: Server, model: str, turn: int) -> Outcome:
    """A list of long texts is embedded; eight clients come with a short one each. Their wait is what counts."""
    began = time.perf_counter()
    long = asyncio.ensure_future(server.embed(model, [text(400, 300_000 + 100 * turn + i) for i in range(24)]))
    await asyncio.sleep(0.2)
    outcome = await together([partial(embed_one, server, model, text(12, 400_000 + 10 * turn + i)) for i in range(8)])
    count = await long
    return Outcome(time.perf_counter() - began, outcome.streams, count + len(outcome.streams))


def one(name: str, model: str, tokens: int, first: int = 0) -> Scenario:
    """Return the scenario in which one client streams. `first`: see `streams`."""
    return Scenario(name, model, partial(streams, count=1, tokens=tokens, first=first), RATE, raw=tokens)


_LONG = 128
_SHORT = 40
"""Tokens of models that take a tenth of a second for each."""
_COPIED = 256
_ROUNDABOUT = 24
"""Prompts that come in turn: more than a cache holds."""
QUESTIONS = (
    "Who are you?",
    "Tell me a short story about a fox and a river.",
    "Write it again as a list of five sentences.",
)
RATE = ("tokens/s", "first", "gap p50", "gap p99")
PROMPT = ("prompt/s", "first")
GAPS = ("tokens/s", "gap p50", "gap p99", "longest gap")
TOY = ("tokens/s", "first")
# The numbers of the first prompts of scenarios that share a model.
_WARM, _EIGHT, _SIXTEEN, _GRPC, _GRPC_EIGHT, _EVICTIONS, _RESTORES = range(100_000, 800_000, 100_000)
SCENARIOS = (
    Scenario("cold", "135m", cold, ("first",), unloads=True),
    one("one", "135m", _LONG),
    replace(one("one warm", "135m", _LONG, _WARM), prepare=fill_cache),
    one("one Q4_K", "135m-q4", _LONG),
    one("one published", "published", _LONG),
    one("one 1B", "1b", _SHORT),
    one("one 1B Q4_K", "1b-q4", _SHORT),
    one("one 3B", "3b", _SHORT),
    one("one 3B Q4_K", "3b-q4", _SHORT),
    Scenario("eight", "135m", partial(streams, count=8, tokens=_LONG, first=_EIGHT), RATE),
    Scenario("eight Q4_K", "135m-q4", partial(streams, count=8, tokens=_LONG, first=_EIGHT), RATE),
    Scenario("eight published", "published", partial(streams, count=8, tokens=_LONG, first=_EIGHT), RATE),
    Scenario("eight 1B Q4_K", "1b-q4", partial(streams, count=8, tokens=_SHORT, first=_EIGHT), RATE),
    Scenario("sixteen", "135m", partial(streams, count=16, tokens=_LONG, first=_SIXTEEN), RATE),
    Scenario("prefill", "135m", partial(prefill, words=1900), PROMPT),
    Scenario("prefill Q4_K", "135m-q4", partial(prefill, words=1900), PROMPT),
    Scenario("prefill published", "published", partial(prefill, words=1500), PROMPT),
    Scenario("prefill 1B", "1b", partial(prefill, words=400), PROMPT),
    Scenario("prefill 1B Q4_K", "1b-q4", partial(prefill, words=400), PROMPT),
    Scenario("shared prefix", "135m", shared_prefix, ("tokens/s", "seconds", "first")),
    Scenario("second turn", "135m", second_turn, ("first",)),
    Scenario("resumed", "135m", resumed, ("first",), unloads=True),
    Scenario("long prompt beside", "135m", long_prompt_beside, (*RATE, "gap p99/p50")),
    Scenario(
        "streams beside evictions",
        "135m",
        partial(beside_prompts, prompt=evicting, first=_EVICTIONS),
        GAPS,
        prepare=partial(fill_slots, prompt=evicting),
    ),
    Scenario(
        "streams beside restores",
        "135m",
        partial(beside_prompts, prompt=coming_back, first=_RESTORES),
        GAPS,
        prepare=partial(fill_slots, prompt=coming_back),
    ),
    Scenario("copying", "copier", copying, ("tokens/s", "decoding/s")),
    Scenario("agent", "agent", agent, ("tokens/s",)),
    Scenario("wander", "agent", wander, ("tokens/s", "decoding/s")),
    Scenario("chat", "published", chat, ("tokens/s", "first")),
    Scenario("toy one", "toy", partial(streams, count=1, tokens=512), TOY),
    Scenario("toy one gRPC", "toy", partial(grpc_streams, count=1, tokens=512, first=_GRPC), TOY, grpc=True),
    Scenario("toy eight", "toy", partial(streams, count=8, tokens=512, first=_EIGHT), TOY),
    Scenario("toy eight gRPC", "toy", partial(grpc_streams, count=8, tokens=512, first=_GRPC_EIGHT), TOY, grpc=True),
    Scenario("requests", "toy", requests, ("requests/s", "first")),
    Scenario("requests gRPC", "toy", grpc_requests, ("requests/s", "first"), grpc=True),
    Scenario("embed one", "bert", one_input, ("inputs/s",)),
    Scenario("embed single", "bert", single_inputs, ("inputs/s",)),
    Scenario("embed lists", "bert", lists, ("inputs/s",)),
    Scenario("embed short beside long", "bert", short_beside_long, ("first", "seconds")),
)
PAGE = (
    *("one", "one Q4_K", "one published", "one 1B", "one 1B Q4_K", "eight", "eight Q4_K"),
    *(
        "prefill",
        "prefill Q4_K",
        "prefill 1B Q4_K",
        "shared prefix",
        "agent",
        "toy eight",
        "embed one",
        "embed single",
        "embed lists",
    ),
)
"""The scenarios of the page of results: `--only page`."""
