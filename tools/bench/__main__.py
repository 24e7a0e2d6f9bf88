"""`python -m tools.bench`: run scenarios on servers in turn, A B A B …, and print one table."""

import argparse
import asyncio
import math
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import aiohttp
from tools.bench.answers import Outcome
from tools.bench.llama_server import far, running_each
from tools.bench.memory_limit import bandwidth, bytes_per_token
from tools.bench.report import line, shares_of, values_of
from tools.bench.results import Machine, Results
from tools.bench.scenarios import PAGE, SCENARIOS, Scenario, raw_one
from tools.bench.servers import Server, memory, running

from tools.bench import page

RAW = "raw loop"


def arguments() -> argparse.Namespace:
    """Read argv."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument(
        "--server",
        action="append",
        required=True,
        metavar="NAME=COMMAND",
        help="a server to start; {port}, {grpc}, {dir} are filled in, VAR=VALUE may stand in front. With {model} it "
        "is a server of one model file that speaks llama-server's API. A URL is a server that already runs. "
        "NAME[SCENARIO,...] is asked in these scenarios alone. The first one's ratios to the others are printed",
    )
    parser.add_argument(
        "--secured",
        action="append",
        default=[],
        metavar="NAME",
        help="the Puna of this name gets a certificate and a key, which its clients use",
    )
    parser.add_argument("--models", type=Path, required=True, help="folder that make_bench_models.py wrote")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="leave out rounds to take no longer, but for the first of each"
    )
    parser.add_argument(
        "--only", default="", help='comma list of scenario names; "page" are those of the page of results'
    )
    parser.add_argument(
        "--ggml",
        action="append",
        default=[],
        metavar="NAME",
        help="start the Puna of this name once more, as NAME-ggml, without its kernels (PUNA_KERNELS=0)",
    )
    parser.add_argument("--page", type=Path, metavar="FOLDER", help="write a page of the results with pictures there")
    parser.add_argument("--raw", action="store_true", help="one stream of llama.cpp's bare loop beside the servers'")
    return parser.parse_args()


def chosen(told: argparse.Namespace) -> list[Scenario]:
    """Return the scenarios to run: those named, or all whose model was written."""
    names = {name.strip() for name in told.only.split(",") if name.strip()}
    if "page" in names:
        names = names - {"page"} | set(PAGE)
    if unknown := names - {each.name for each in SCENARIOS}:
        raise SystemExit(f"--only: there is no scenario {', '.join(sorted(unknown))}")
    wanted = [each for each in SCENARIOS if not names or each.name in names]
    missing = {each.name for each in wanted if not (told.models / f"{each.model}.gguf").exists()}
    if missing:
        print(f"without a model in {told.models}, and left out: {', '.join(sorted(missing))}")
    return [each for each in wanted if each.name not in missing]


async def measure(
    scenario: Scenario, servers: list[Server], rounds: int, raw: Path | None = None, seconds: float = math.inf
) -> dict[str, list[Outcome]]:
    """Run a scenario on every server in turn, `rounds` times after a warm-up.

    `raw`: a model's file, with which llama.cpp's bare loop is measured too. After so many `seconds` no round begins,
    but for the first.
    """
    asked = {server.name: partial(scenario.ask, server, scenario.model) for server in servers}
    if raw:
        asked[RAW] = partial(raw_one, raw, scenario.raw)
    if scenario.prepare:
        for server in servers:
            await scenario.prepare(server, scenario.model)
    outcomes: dict[str, list[Outcome]] = {name: [] for name in asked}
    until = time.monotonic() + seconds
    for turn in range(rounds + 1):
        if turn > 1 and time.monotonic() > until:
            print(f"{scenario.name}: time is short, so there are {turn - 1} of {rounds} rounds")
            break
        for name, ask in list(asked.items()):
            try:
                outcome = await ask(turn)
            except (RuntimeError, aiohttp.ClientError, TimeoutError) as error:
                # The figures of the others are worth having, and a run is long.
                print(f"{scenario.name}: {name} failed and is left out: {error!r}", flush=True)
                del asked[name], outcomes[name]
                continue
            if turn:  # the first round warms up
                outcomes[name].append(outcome)
    return outcomes


@dataclass(frozen=True, slots=True)
class Given:
    """A server as the command line names it."""

    command: str
    scenarios: frozenset[str]
    """Those in which it is asked; none: all."""


def given(told: argparse.Namespace) -> dict[str, Given]:
    """Return the commands of all servers by their names."""
    found: dict[str, Given] = {}
    for each in told.server:
        name, _, command = each.partition("=")
        name, _, scenarios = name.removesuffix("]").partition("[")
        only = frozenset(each.strip() for each in scenarios.split(",") if each.strip())
        found[name] = Given(command, only)
        if name in told.ggml:
            found[f"{name}-ggml"] = Given(f"PUNA_KERNELS=0 {command}", only)
    return found


def able(scenario: Scenario, servers: list[Server], only: Mapping[str, Given]) -> list[Server]:
    """Return the servers that are to be asked for a scenario, and can be."""
    return [
        server
        for server in servers
        if scenario.name in (only[server.name].scenarios or (scenario.name,))
        and server.serves(scenario.model)
        and (server.unloads or not scenario.unloads)
        and (not scenario.grpc or (server.grpc and server.name.startswith("puna")))
    ]


def entered(name: str, command: str, folder: Path, *, secured: bool) -> AbstractAsyncContextManager[Server]:
    """Return the context that starts a server, or that joins one that already runs."""
    if command.startswith(("http://", "https://")):
        return far(name, command)
    folder.mkdir()
    if "{model}" in command:
        return running_each(name, command, folder)
    return running(name, command, folder, secured=secured)


async def described(server: Server, command: str) -> str:
    """Return what the page says of a server. Puna tells the version of Ollama whose API it has."""
    version = await server.version()
    # Programs lie elsewhere on other machines.
    command = " ".join(word if "://" in word else word.rpartition("/")[2] for word in shlex.split(command))
    return f"`{command}`" + (f", which tells version {version}" if version else "")


async def report(
    scenario: Scenario, asked: list[Server], told: argparse.Namespace, results: Results, seconds: float
) -> bool:
    """Ask servers for a scenario, print its rows and add them to the results. Return whether no server failed."""
    model = told.models / f"{scenario.model}.gguf"
    outcomes = await measure(scenario, asked, told.rounds, model if told.raw and scenario.raw else None, seconds)
    if not outcomes:
        return not asked
    figures = {figure: values_of(figure, outcomes) for figure in scenario.figures}
    # Several streams read the weights once together, so only a single one shows what memory allows.
    if scenario.raw and results.machine.bandwidth:
        figures["of memory"] = shares_of(outcomes, results.machine.bandwidth / bytes_per_token(model))
    print(scenario.name)
    for figure, values in figures.items():
        print(line(figure, values), flush=True)
        results.add(scenario.name, figure, values)
    if told.page:
        page.write(results, told.page)
    return set(outcomes) >= {server.name for server in asked}


async def main() -> None:
    """Run everything, print the table, and write the page. The servers end with it, when it is told to end too."""
    if task := asyncio.current_task():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    told, began = arguments(), time.monotonic()
    scenarios = chosen(told)
    names = {each.name for each in scenarios}
    known = {name: each for name, each in given(told).items() if not each.scenarios or each.scenarios & names}
    machine = Machine.this()
    print(f"{machine.processor}, {machine.cores} cores, {machine.system}")
    print(f"{told.rounds} rounds, medians; ratios with their range")
    if any(scenario.raw for scenario in scenarios):
        machine.bandwidth = await asyncio.to_thread(bandwidth, machine.cores)
        print(f"memory: {machine.bandwidth / 1e9:.1f} GB/s are read by {machine.cores} threads")
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        async with AsyncExitStack() as stack:
            servers = []
            for name, each in known.items():
                context = entered(name, each.command, Path(scratch) / name, secured=name in told.secured)
                servers.append(await stack.enter_async_context(context))
            for server in servers:
                for model in sorted({each.model for each in scenarios if able(each, [server], known)}):
                    await server.create(model, told.models / f"{model}.gguf")
            about = {server.name: await described(server, known[server.name].command) for server in servers}
            if told.raw:
                about[RAW] = "llama.cpp alone, by `tools.bench.raw`"
            columns = list(about)
            results = Results(machine, told.rounds, about)
            print(f"{'':14}" + "".join(f"{column:>14}" for column in columns))
            print(f"  {'start s':12}" + "".join(f"{server.start_seconds:>14.3f}" for server in servers))
            whole, end = True, began + 60 * told.minutes
            for number, each in enumerate(scenarios):
                # What a scenario leaves of its share of the time goes to those behind it.
                seconds = max(0.0, end - time.monotonic()) / (len(scenarios) - number)
                whole &= await report(each, able(each, servers, known), told, results, seconds)
            print(
                f"  {'memory MB':12}" + "".join(f"{sum(map(memory, server.pids)) / 1e6:>14.1f}" for server in servers)
            )
    if not whole:
        sys.exit("a server failed")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except asyncio.CancelledError:
        sys.exit("ended by SIGTERM")
