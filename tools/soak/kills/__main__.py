"""`python -m tools.soak.kills --rounds 200`: kills hosts, nodes and servers at random under load."""

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import aiohttp
import grpc.aio
from tools.soak.kills.clients import CHANNEL, Ways
from tools.soak.kills.cluster import PUNA, ROOT, Cluster, StaticCluster
from tools.soak.kills.network_cluster import NetworkCluster
from tools.soak.kills.programs import command, marked
from tools.soak.kills.ray_cluster import RayCluster
from tools.soak.kills.rounds import Rounds, Verdict, until

MODELS: Final = ("one", "two", "three")
LAUNCHERS: Final[dict[str, Callable[[Path], Cluster]]] = {
    "static": StaticCluster,
    "network": NetworkCluster,
    "ray": RayCluster,
}
MOST_FAULTS: Final = 50
"""Faults that the report names. All are counted."""
GONE_SECONDS: Final = 20.0
"""How long processes may outlive the programs that started them."""


def arguments() -> argparse.Namespace:
    """Read argv."""
    parser = argparse.ArgumentParser(prog="python -m tools.soak.kills", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="0: one of each kind")
    parser.add_argument("--launcher", choices=LAUNCHERS, default="static")
    parser.add_argument("--kinds", default="", help="what is killed, separated by commas (default: everything)")
    parser.add_argument("--streams", type=int, default=6, help="clients that stream")
    parser.add_argument("--probers", type=int, default=4, help="clients that send short requests")
    parser.add_argument("--slack", type=float, default=1.0, help="seconds more than 3 that an error may take")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


async def torment(
    cluster: Cluster, kinds: tuple[str, ...], *, streams: int, probers: int, slack: float, seed: int
) -> Verdict:
    """Start a cluster, break something of each kind in turn, end the cluster, and look at what it has left."""
    async with cluster:
        connector, timeout = aiohttp.TCPConnector(limit=0, force_close=True), aiohttp.ClientTimeout(None)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            grpc.aio.insecure_channel(cluster.grpc, options=CHANNEL) as channel,
        ):
            await stock(cluster)
            rounds = Rounds(cluster, Ways(cluster.url, session, channel), MODELS, random.Random(seed), slack)
            verdict = await rounds.play(kinds, streams, probers)
    verdict.faults += await left_behind(cluster)
    return verdict


async def stock(cluster: Cluster) -> None:
    """Make the models. The last byte of their weights differs, since models that share weights share a host."""
    data = (ROOT / "tests/models/scripted.gguf").read_bytes()
    for number, name in enumerate(MODELS):
        file = cluster.folder / f"{name}.gguf"
        await asyncio.to_thread(file.write_bytes, data[:-1] + bytes([number]))
        words = ("create", name, "--file", str(file), "--backend", "scripted")
        made = await asyncio.create_subprocess_exec(PUNA, *words, env=dict(cluster.core.environment), stderr=-3)
        if await made.wait():
            raise RuntimeError(f"{name} was not made")


async def left_behind(cluster: Cluster) -> list[str]:
    """Return what a cluster that has ended has left behind, and tracebacks of its logs."""
    await until(lambda: not list(marked(cluster.run)), GONE_SECONDS)
    found = [f"a process is left: {pid} {command(pid)}" for pid in marked(cluster.run)]
    for folder in (cluster.folder / "run", cluster.folder / "tmp"):
        found += [
            f"left in {folder.name}: {each.name}"
            for each in folder.rglob("*")
            if "puna" in str(each.relative_to(folder))
        ]
    for each in cluster.programs():
        text = each.text()
        if (place := text.find("Traceback")) >= 0:
            found.append(f"{each.name} has written a traceback: {text[max(place - 500, 0) : place + 3000]}")
    return found


def report(verdict: Verdict) -> str:
    """Return a table of what was killed and how soon clients knew, and the texts of their errors."""
    lines = [f"{'':10}{'kills':>7}{'streams':>9}{'p50 s':>8}{'max s':>8}"]
    for kind, count in verdict.kills.items():
        delays = verdict.delays.get(kind, [])
        times = f"{statistics.median(delays):>8.2f}{max(delays):>8.2f}" if delays else ""
        lines.append(f"{kind:10}{count:>7}{len(delays):>9}{times}")
    slowest = f"the slowest after {verdict.slowest:.1f} s ({verdict.slowest_text})"
    lines.append(f"{verdict.answers} short requests were answered, {slowest}")
    lines += [f"{count:>6} {text}" for text, count in verdict.errors.most_common()]
    lines += [f"FAULT: {each}" for each in verdict.faults[:MOST_FAULTS]]
    if verdict.faults:
        lines.append(f"{len(verdict.faults)} faults")
    return "\n".join(lines)


async def main() -> int:
    """Run everything and print the table; return 0 if there is no fault."""
    told = arguments()
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        cluster = LAUNCHERS[told.launcher](Path(folder))
        draw = random.Random(told.seed)
        allowed = tuple(told.kinds.split(",")) if told.kinds else tuple(cluster.kinds)
        kinds = tuple(draw.choice(allowed) for _ in range(told.rounds)) or allowed
        verdict = await torment(
            cluster, kinds, streams=told.streams, probers=told.probers, slack=told.slack, seed=told.seed
        )
    print(report(verdict))
    return 1 if verdict.faults else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
