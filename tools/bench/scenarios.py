"""What is asked: one function a scenario, each asks one server once and returns an Outcome."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from tools.bench.servers import Server
from tools.bench.work import Outcome, Stream, embed, generate, generate_grpc, text, together

Ask = Callable[[Server, str, int], Awaitable[Outcome]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A kind of load."""

    name: str
    model: str
    """Key of the model it runs on: "135m", "bert" or "toy"."""
    ask: Ask
    figures: tuple[str, ...]
    """Which figures of report.FIGURES tell something here."""
    grpc: bool = False
    """Whether it speaks gRPC, so that only servers that do are asked."""


async def streams(server: Server, model: str, turn: int, *, count: int, tokens: int, words: int = 24) -> Outcome:
    """Let `count` clients stream at once, each with a prompt of its own."""
    return await together(
        [partial(generate, server, model, text(words, 1000 * turn + i), tokens, seed=i) for i in range(count)]
    )


async def grpc_streams(server: Server, model: str, turn: int, *, count: int, tokens: int) -> Outcome:
    """Do the same over gRPC."""
    return await together(
        [partial(generate_grpc, server, model, text(24, 1000 * turn + i), tokens, seed=i) for i in range(count)]
    )


async def shared_prefix(server: Server, model: str, turn: int) -> Outcome:
    """Eight prompts that share their first 620 tokens arrive together; 16 tokens each."""
    common = text(620, 7_000_000 + turn)
    return await together([partial(generate, server, model, f"{common} {text(8, i)}", 16, seed=i) for i in range(8)])


async def second_turn(server: Server, model: str, turn: int) -> Outcome:
    """A chat's second turn: the first one's prompt and answer are its prefix. Only the second is counted."""
    first = text(300, 9_000_000 + turn)
    await generate(server, model, first, 32)
    return await together([partial(generate, server, model, f"{first} {text(20, turn)}", 32)])


async def long_prompt_beside(server: Server, model: str, turn: int) -> Outcome:
    """Seven streams run; a prompt of 2,000 tokens joins. Only the seven are counted."""

    async def late() -> Stream:
        await asyncio.sleep(1.0)
        return await generate(server, model, text(1900, 8_000_000 + turn), 8)

    newcomer = asyncio.ensure_future(late())
    outcome = await streams(server, model, turn, count=7, tokens=160)
    await newcomer
    return outcome


async def copying(server: Server, model: str, turn: int) -> Outcome:
    """Text with long verbatim copies, temperature 0."""
    passage = text(60, turn)
    return await together(
        [partial(generate, server, model, f"{passage}\n{passage}\n{passage}\n", 128, temperature=0.0)]
    )


async def single_inputs(server: Server, model: str, turn: int) -> Outcome:
    """Sixteen clients embed eight texts each, one a request."""

    async def client(number: int) -> int:
        return sum([await embed(server, model, [text(24, 10_000 * turn + 8 * number + i)]) for i in range(8)])

    began = time.perf_counter()
    counts = await asyncio.gather(*(client(number) for number in range(16)))
    return Outcome(time.perf_counter() - began, inputs=sum(counts))


async def lists(server: Server, model: str, turn: int) -> Outcome:
    """One client embeds lists of 64 texts."""
    began = time.perf_counter()
    count = sum(
        [await embed(server, model, [text(24, 100_000 * turn + 64 * i + j) for j in range(64)]) for i in range(2)]
    )
    return Outcome(time.perf_counter() - began, inputs=count)


RATE = ("tokens/s", "first", "gap p50", "gap p99")
SCENARIOS = (
    Scenario("one", "135m", partial(streams, count=1, tokens=128), RATE),
    Scenario("eight", "135m", partial(streams, count=8, tokens=64), RATE),
    Scenario("sixteen", "135m", partial(streams, count=16, tokens=48), RATE),
    Scenario("shared prefix", "135m", shared_prefix, ("seconds", "first")),
    Scenario("second turn", "135m", second_turn, ("first",)),
    Scenario("long prompt beside", "135m", long_prompt_beside, (*RATE, "gap p99/p50")),
    Scenario("copying", "135m", copying, ("tokens/s",)),
    Scenario("toy one", "toy", partial(streams, count=1, tokens=512), ("tokens/s", "first")),
    Scenario("toy eight", "toy", partial(streams, count=8, tokens=512), ("tokens/s", "first")),
    Scenario("toy eight gRPC", "toy", partial(grpc_streams, count=8, tokens=512), ("tokens/s", "first"), grpc=True),
    Scenario("embed single", "bert", single_inputs, ("inputs/s",)),
    Scenario("embed lists", "bert", lists, ("inputs/s",)),
)
