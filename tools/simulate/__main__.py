"""`python -m tools.simulate`: compare routing policies on replicas in virtual time, and on real hosts."""

import argparse
import asyncio
import json
import os
import random
import statistics
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import asdict, fields
from pathlib import Path

from tools.simulate.cluster import Cluster, Outcome
from tools.simulate.hosts import Calibration, HostReplica, Player, replicas, routed
from tools.simulate.prompts import Prompt
from tools.simulate.replicas import HostCosts
from tools.simulate.report import Row, row, table
from tools.simulate.workloads import WORKLOADS, Session, arrivals, fitting

from puna.runtime.routing import Costs, RandomRouting, policies
from puna.runtime.scaling import ScalingLimits

PRESET = HostCosts(step=0.003, sequence=0.0025, prefill=0.0015)
"""Costs of the 135M benchmark model on two cores that had other work to do, rounded; `calibrate` measures others."""

Sessions = list[tuple[float, Session]]
"""Sessions with the times at which they begin."""
PACED = Path(__file__).parent / "paced"
"""The folder of the backend whose hosts sleep instead of computing."""


def capacity(workload: str, costs: HostCosts) -> float:
    """Return how many requests one replica serves in a second if no cache helps."""
    sessions = WORKLOADS[workload](random.Random(0), Prompt())
    turns = [turn for _ in range(300) for turn in next(sessions)]
    prompt = statistics.mean(turn.prompt.tokens for turn in turns)
    output = statistics.mean(turn.output_tokens for turn in turns)
    return 1 / (costs.evaluate(0, prompt, beside=False) + output * costs.decode(costs.slots) / costs.slots)


def routing_costs(workload: str, costs: HostCosts) -> Costs:
    """Return what the policy is told of the costs; a server learns it from earlier requests."""
    sessions = WORKLOADS[workload](random.Random(0), Prompt())
    outputs = [turn.output_tokens for _ in range(300) for turn in next(sessions)]
    return costs.routing(statistics.mean(outputs))


def compare(workload: str, costs: HostCosts, told: argparse.Namespace, load: float) -> dict[str, list[Row]]:
    """Run each policy on the same arrivals, once for each seed."""
    rows: dict[str, list[Row]] = {}
    most = told.most or told.replicas
    for seed in range(told.seeds):
        per_second = load * capacity(workload, costs) * told.replicas
        sessions = arrivals(workload, seed, told.requests, per_second)
        for name, policy in policies(seed, routing_costs(workload, costs)).items():
            outcome = Cluster(costs, policy, ScalingLimits(least=told.replicas, most=most)).run(sessions)
            rows.setdefault(name, []).append(row(outcome, told.first_limit))
    return rows


def simulate(told: argparse.Namespace, costs: HostCosts) -> None:
    """Print a table for each workload and load."""
    print(f"{told.replicas} replicas, {told.requests} requests, {told.seeds} seeds; {costs}")
    for workload in WORKLOADS if told.workload == "all" else [told.workload]:
        print(f"\n{workload}: {WORKLOADS[workload].__doc__}")
        for load in told.load:
            print(f"\nLoad {load}\n\n{table(compare(workload, costs, told, load))}", flush=True)


async def with_hosts(told: argparse.Namespace, costs: HostCosts) -> None:
    """Measure the costs of a real host, or play workloads on real hosts beside the simulation."""
    with tempfile.TemporaryDirectory(prefix="simulate-") as scratch:
        starting = replicas(
            told.puna,
            told.model,
            Path(scratch),
            count=1 if told.command == "calibrate" else told.replicas,
            slots=costs.slots,
            context_length=costs.context_length,
        )
        async with starting as found:
            if told.command == "calibrate":
                print(json.dumps(asdict(await Calibration(found[0]).costs(costs)), indent=2))
                return
            for load in told.load:
                print(f"\nLoad {load}\n\n{table(await play(found, costs, told, load))}", flush=True)


async def play(
    found: list[HostReplica], costs: HostCosts, told: argparse.Namespace, load: float
) -> dict[str, list[Row]]:
    """Run each policy on the same arrivals, simulated and on real hosts, in turns."""

    async def real(name: str, seed: int, sessions: Sessions) -> Outcome:
        return await Player(found, policies(seed, routing_costs(told.workload, costs))[name]).run(sessions)

    return await side_by_side(costs, told, load, real)


async def side_by_side(
    costs: HostCosts,
    told: argparse.Namespace,
    load: float,
    real: Callable[[str, int, Sessions], Awaitable[Outcome]],
) -> dict[str, list[Row]]:
    """Run each policy on the same arrivals, simulated and for real, once for each seed.

    `real` gets the name of a policy, the seed and the sessions.
    """
    rows: dict[str, list[Row]] = {}
    limits = ScalingLimits(least=told.replicas, most=told.replicas)
    for seed in range(told.seeds):
        per_second = load * capacity(told.workload, costs) * told.replicas
        sessions = fitting(arrivals(told.workload, seed, told.requests, per_second), costs.context_length)
        for name in told.policies.split(","):
            policy = policies(seed, routing_costs(told.workload, costs))[name]
            simulated = Cluster(costs, policy, limits).run(sessions)
            rows.setdefault(f"{name}, simulated", []).append(row(simulated, told.first_limit))
            rows.setdefault(f"{name}, real", []).append(row(await real(name, seed, sessions), told.first_limit))
    return rows


async def serve(told: argparse.Namespace, costs: HostCosts) -> None:
    """Play a workload on one server whose model has replicas, once for each policy and seed, beside the simulation."""
    path = f"{PACED}:{os.environ.get('PYTHONPATH', '')}"
    command = f"PUNA_BACKEND=paced PYTHONPATH={path} {told.puna}" if told.paced else told.puna

    async def real(name: str, seed: int, sessions: Sessions) -> Outcome:
        with tempfile.TemporaryDirectory(prefix="simulate-") as scratch:
            starting = routed(
                command,
                told.model,
                Path(scratch),
                routing=name,
                count=told.replicas,
                slots=costs.slots,
                context_length=costs.context_length,
            )
            async with starting as found:
                return await Player(found, RandomRouting(seed)).run(sessions)

    for load in told.load:
        print(f"\nLoad {load}\n\n{table(await side_by_side(costs, told, load, real))}", flush=True)


def arguments() -> argparse.Namespace:
    """Read argv."""
    parser = argparse.ArgumentParser(prog="python -m tools.simulate", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    compared = commands.add_parser("compare", help="compare policies in virtual time")
    calibrated = commands.add_parser("calibrate", help="measure the costs of a real host's steps, and print them")
    played = commands.add_parser("play", help="play a workload on real hosts beside the simulation")
    served = commands.add_parser("serve", help="play a workload on one server whose model has replicas")
    for each in (compared, played, served):
        each.add_argument("--workload", choices=[*WORKLOADS, "all"], default="chats")
        each.add_argument("--replicas", type=int, default=3, help="replicas at the start, and the fewest")
        each.add_argument("--requests", type=int, default=3000)
        each.add_argument(
            "--load",
            type=lambda text: [float(word) for word in text.split(",")],
            default=[0.9],
            help="arrivals as a share of what the replicas serve without a prefix cache; several with commas",
        )
        each.add_argument("--seeds", type=int, default=5, help="how often each policy runs, with other draws")
        each.add_argument(
            "--first-limit", type=float, default=5.0, help="seconds within which a first token is in time"
        )
    compared.add_argument("--most", type=int, help="the most replicas; without it the number stays the same")
    for each in (played, served):
        each.add_argument("--policies", default="least-loaded,prefix")
    served.add_argument("--paced", action="store_true", help="hosts that sleep instead of computing; see paced/")
    for each in (calibrated, played, served):
        each.add_argument("--puna", default="puna serve", metavar="COMMAND")
        each.add_argument("--model", type=Path, required=True, help="a GGUF file")
    for each in (compared, calibrated, played, served):
        each.add_argument("--costs", type=Path, help="file that `calibrate` wrote")
        for cost in fields(HostCosts):
            each.add_argument(f"--{cost.name.replace('_', '-')}", type=type(getattr(PRESET, cost.name)), dest=cost.name)
    return parser.parse_args()


def main() -> None:
    """Run a command."""
    told = arguments()
    chosen = asdict(PRESET)
    if told.costs:
        chosen |= json.loads(told.costs.read_text())
    costs = HostCosts(**(chosen | {name: value for name in chosen if (value := getattr(told, name)) is not None}))
    if told.command == "compare":
        simulate(told, costs)
    else:
        asyncio.run(serve(told, costs) if told.command == "serve" else with_hosts(told, costs))


if __name__ == "__main__":
    main()
