"""`python -m tools.bench`: run scenarios on servers in turn, A B A B …, and print one table."""

import argparse
import asyncio
import platform
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from tools.bench.report import row
from tools.bench.scenarios import SCENARIOS, Scenario
from tools.bench.servers import Server, memory, running
from tools.bench.work import Outcome, generate, text


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
    parser.add_argument("--models", type=Path, required=True, help="folder that make_bench_models.py wrote")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="comma list of scenario names")
    return parser.parse_args()


async def measure(scenario: Scenario, servers: list[Server], rounds: int) -> dict[str, list[Outcome]]:
    """Ask every server in turn, `rounds` times after a warm-up."""
    asked = [server for server in servers if not scenario.grpc or server.name.startswith("puna")]
    outcomes: dict[str, list[Outcome]] = {server.name: [] for server in asked}
    for turn in range(rounds + 1):
        for server in asked:
            outcome = await scenario.ask(server, scenario.model, turn)
            if turn:  # the first round warms up
                outcomes[server.name].append(outcome)
    return outcomes


async def cold(server: Server, model: str) -> float:
    """Return the seconds from asking for a model that is not loaded to its first token."""
    began = time.perf_counter()
    stream = await generate(server, model, text(24, 5), 1)
    return stream.arrivals[0] - began


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
                servers.append(await stack.enter_async_context(running(name, command, folder)))
            for server in servers:
                for file in sorted(told.models.glob("*.gguf")):
                    await server.create(file.stem, file)
            print(f"{'':14}" + "".join(f"{server.name:>14}" for server in servers))
            print(f"  {'start s':12}" + "".join(f"{server.start_seconds:>14.3f}" for server in servers))
            if any(scenario.model == "135m" for scenario in scenarios):
                print(f"  {'cold s':12}" + "".join([f"{await cold(server, '135m'):>14.3f}" for server in servers]))
            for scenario in scenarios:
                outcomes = await measure(scenario, servers, told.rounds)
                print(scenario.name)
                for figure in scenario.figures:
                    print(row(figure, outcomes), flush=True)
            print(f"  {'memory MB':12}" + "".join(f"{memory(server.pid) / 1e6:>14.1f}" for server in servers))


asyncio.run(main())
