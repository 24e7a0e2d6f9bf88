"""`python -m tools.bench`: run scenarios on servers in turn, A B A B …, and print one table."""

import argparse
import asyncio
import tempfile
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from tools.bench.memory_limit import bandwidth, bytes_per_token
from tools.bench.report import line, shares_of, values_of
from tools.bench.results import Machine, Results
from tools.bench.scenarios import SCENARIOS, Scenario, raw_one
from tools.bench.servers import Server, memory, running
from tools.bench.work import Outcome

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
        help="a server to start; {port}, {grpc}, {dir} are filled in, VAR=VALUE may stand in front. The first one's "
        "ratios to the others are printed",
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
    parser.add_argument("--only", default="", help="comma list of scenario names")
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


async def measure(
    scenario: Scenario, servers: list[Server], rounds: int, raw: Path | None = None
) -> dict[str, list[Outcome]]:
    """Run a scenario on every server in turn, `rounds` times after a warm-up.

    `raw`: a model's file, with which llama.cpp's bare loop is measured too.
    """
    speaking = [server for server in servers if not scenario.grpc or server.name.startswith("puna")]
    asked = {server.name: partial(scenario.ask, server, scenario.model) for server in speaking}
    if raw:
        asked[RAW] = partial(raw_one, raw)
    if scenario.prepare:
        for server in speaking:
            await scenario.prepare(server, scenario.model)
    outcomes: dict[str, list[Outcome]] = {name: [] for name in asked}
    for turn in range(rounds + 1):
        for name, ask in asked.items():
            outcome = await ask(turn)
            if turn:  # the first round warms up
                outcomes[name].append(outcome)
    return outcomes


def commands(told: argparse.Namespace) -> dict[str, str]:
    """Return the commands of all servers by their names."""
    found: dict[str, str] = {}
    for given in told.server:
        name, _, command = given.partition("=")
        found[name] = command
        if name in told.ggml:
            found[f"{name}-ggml"] = f"PUNA_KERNELS=0 {command}"
    return found


async def report(scenario: Scenario, servers: list[Server], told: argparse.Namespace, results: Results) -> None:
    """Measure a scenario, print its rows and add them to the results."""
    model = told.models / f"{scenario.model}.gguf"
    outcomes = await measure(scenario, servers, told.rounds, model if told.raw and scenario.raw else None)
    figures = {figure: values_of(figure, outcomes) for figure in scenario.figures}
    # Several streams read the weights once together, so only a single one shows what memory allows.
    if scenario.raw and results.machine.bandwidth:
        figures["of memory"] = shares_of(outcomes, results.machine.bandwidth / bytes_per_token(model))
    print(scenario.name)
    for figure, values in figures.items():
        print(line(figure, values), flush=True)
        results.add(scenario.name, figure, values)


async def main() -> None:
    """Run everything, print the table, and write the page."""
    told = arguments()
    wanted = {name.strip() for name in told.only.split(",") if name.strip()}
    scenarios = [each for each in SCENARIOS if not wanted or each.name in wanted]
    machine = Machine.this()
    print(f"{machine.processor}, {machine.cores} cores, {machine.system}")
    print(f"{told.rounds} rounds, medians; ratios with their range")
    if any(scenario.raw for scenario in scenarios):
        machine.bandwidth = await asyncio.to_thread(bandwidth, machine.cores)
        print(f"memory: {machine.bandwidth / 1e9:.1f} GB/s are read by {machine.cores} threads")
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        async with AsyncExitStack() as stack:
            servers = []
            for name, command in commands(told).items():
                folder = Path(scratch) / name
                folder.mkdir()
                servers.append(
                    await stack.enter_async_context(running(name, command, folder, secured=name in told.secured))
                )
            for server in servers:
                for model in sorted({scenario.model for scenario in scenarios}):
                    await server.create(model, told.models / f"{model}.gguf")
            # Puna tells the version of Ollama whose API it has.
            described = {
                server.name: f"`{command}`, which tells version {await server.version()}"
                for server, command in zip(servers, commands(told).values(), strict=True)
            }
            if told.raw:
                described[RAW] = "llama.cpp alone, by `tools.bench.raw`"
            columns = list(described)
            results = Results(machine, told.rounds, described)
            print(f"{'':14}" + "".join(f"{column:>14}" for column in columns))
            print(f"  {'start s':12}" + "".join(f"{server.start_seconds:>14.3f}" for server in servers))
            for scenario in scenarios:
                await report(scenario, servers, told, results)
            print(f"  {'memory MB':12}" + "".join(f"{memory(server.pid) / 1e6:>14.1f}" for server in servers))
    if told.page:
        page.write(results, told.page)


if __name__ == "__main__":
    asyncio.run(main())
