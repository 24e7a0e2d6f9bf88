"""`python -m tools.bench`: run scenarios on servers in turn, A B A B …, and print one table."""

import argparse
import asyncio
import platform
import tempfile
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from tools.bench.report import row
from tools.bench.scenarios import SCENARIOS, Scenario, raw_one
from tools.bench.servers import Server, memory, running
from tools.bench.work import Outcome

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


async def main() -> None:
    """Run everything and print the table."""
    told = arguments()
    wanted = {name.strip() for name in told.only.split(",") if name.strip()}
    scenarios = [each for each in SCENARIOS if not wanted or each.name in wanted]
    print(f"{platform.machine()}, {platform.python_version()}, {told.rounds} rounds, medians; ratios with their range")
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        async with AsyncExitStack() as stack:
            servers = []
            for given in told.server:
                name, _, command = given.partition("=")
                folder = Path(scratch) / name
                folder.mkdir()
                servers.append(
                    await stack.enter_async_context(running(name, command, folder, secured=name in told.secured))
                )
            for server in servers:
                for model in sorted({scenario.model for scenario in scenarios}):
                    await server.create(model, told.models / f"{model}.gguf")
            columns = [server.name for server in servers] + [RAW] * told.raw
            print(f"{'':14}" + "".join(f"{column:>14}" for column in columns))
            print(f"  {'start s':12}" + "".join(f"{server.start_seconds:>14.3f}" for server in servers))
            for scenario in scenarios:
                raw = told.models / f"{scenario.model}.gguf" if told.raw and scenario.raw else None
                outcomes = await measure(scenario, servers, told.rounds, raw)
                print(scenario.name)
                for figure in scenario.figures:
                    print(row(figure, outcomes), flush=True)
            print(f"  {'memory MB':12}" + "".join(f"{memory(server.pid) / 1e6:>14.1f}" for server in servers))


if __name__ == "__main__":
    asyncio.run(main())
