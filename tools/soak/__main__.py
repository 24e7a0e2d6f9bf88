"""`python -m tools.soak --seconds 600`: sends mixed requests, cancels a third, and looks for leaks."""

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc.aio
from tools.bench.servers import Server, running, tree
from tools.soak.held import Held, held
from tools.soak.verdict import faults, growth, table
from tools.soak.work import GRPC, REST, Ask, Tally, Target, once, rest_long, work

from puna_client.v1 import models_pb2, models_pb2_grpc, server_pb2, server_pb2_grpc

ROOT = Path(__file__).parents[2]
PUNA = f"{sys.executable} -m puna serve"
WRITER = "llamita"
QUIET_SECONDS = 20
"""Seconds that a server may take to end cancelled requests."""


def arguments() -> argparse.Namespace:
    """Read argv."""
    parser = argparse.ArgumentParser(prog="python -m tools.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--server", default=PUNA, help="command; {port}, {grpc} and {dir} are filled in")
    parser.add_argument("--rest-only", action="store_true", help="the server speaks no gRPC")
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--model", type=Path, help="a GGUF file whose template knows tools (default: llamita)")
    parser.add_argument("--embedder", type=Path, default=ROOT / "tests/models/embedder.gguf")
    parser.add_argument("--fill", type=int, default=32, help="prompts of a full context to begin with")
    parser.add_argument("--give-up", type=float, default=1 / 3, help="the part of requests that is not waited for")
    parser.add_argument("--growth", type=float, default=0.05, help="how much memory may grow after the first tenth")
    parser.add_argument("--kill-every", type=float, default=0, help="seconds after which a model's process is killed")
    parser.add_argument("--pause-file", type=Path, help="while this file exists, nothing is asked")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


async def quiet(target: Target) -> str:
    """Wait until the server is idle. Return the work that is left after QUIET_SECONDS; empty if there is none."""
    left = ""
    for _ in range(QUIET_SECONDS * 10):
        left = await under_way(target)
        if not left:
            break
        await asyncio.sleep(0.1)
    return left


async def under_way(target: Target) -> str:
    """Return the work that a server reports over gRPC; empty if it has none or speaks no gRPC."""
    if target.channel is None:
        return ""
    requests = await server_pb2_grpc.ServerServiceStub(target.channel).ListRequests(
        server_pb2.ListRequestsRequest(page_size=1000)
    )
    loaded = await models_pb2_grpc.ModelsServiceStub(target.channel).ListLoadedModels(
        models_pb2.ListLoadedModelsRequest()
    )
    told = [f"{each.method} of {each.model}" for each in requests.requests]
    told += [
        f"{each.model.name}: {each.active_requests} active, {each.queued_requests} queued"
        for each in loaded.models
        if each.active_requests or each.queued_requests
    ]
    return "; ".join(told)


async def settled(server: Server, target: Target) -> tuple[Held, str]:
    """Let a server come to rest. Return its resources then, and the work that is left."""
    # Cancelled requests are finished in the background, so the count waits for them.
    left = await quiet(target)
    await asyncio.sleep(1.5)  # by then, cancelled connections are closed
    return held(server.pid), left


async def watch(server: Server, samples: list[int], told: argparse.Namespace, killed: list[int]) -> None:
    """Record the memory every second, and kill a host every `--kill-every` seconds."""
    for second in range(1, 1 << 30):
        await asyncio.sleep(1)
        samples.append(held(server.pid).bytes)
        # The server itself is never killed: the test is that it replaces its hosts.
        hosts = [pid for pid in tree(server.pid) if pid != server.pid]
        if told.kill_every and hosts and second % int(told.kill_every) == 0:
            killed.append(random.choice(hosts))
            os.kill(killed[-1], signal.SIGKILL)


@asynccontextmanager
async def asked(told: argparse.Namespace, scratch: Path) -> AsyncGenerator[tuple[Server, Target]]:
    """Start the server with its two models."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(running("server", told.server, scratch))
        if told.model is not None:
            await server.create(WRITER, told.model)
        else:
            await demo(scratch / "models")
        await server.create("embedder", told.embedder)
        channel = None
        if not told.rest_only:
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.grpc))
        yield server, Target(server.url, server.session, channel, WRITER, "embedder")


async def demo(store: Path) -> None:
    """Put the demo model into a store."""
    command = (sys.executable, "-m", "puna", "demo")
    environment = os.environ | {"OLLAMA_MODELS": str(store)}
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.DEVNULL)
    if await process.wait():
        raise RuntimeError("puna demo failed")


async def warm_up(target: Target, kinds: Sequence[Ask], draw: random.Random, told: argparse.Namespace) -> None:
    """Send each kind of request once, then many together, so that caches and pools are full before the first count."""
    warm_up = Tally()
    for ask in kinds:
        await once(ask, target, warm_up, draw)
    # Prompts of a full context make every slot's cache resident, which would otherwise look like a leak later.
    await asyncio.gather(*(once(rest_long, target, warm_up, draw) for _ in range(told.fill)))
    # At twice the number of clients, so that every pool has grown to its largest size.
    await asyncio.gather(*(once(kinds[n % len(kinds)], target, warm_up, draw) for n in range(told.clients * 2)))
    if warm_up.errors:
        raise RuntimeError(f"the warm-up failed: {warm_up.errors.most_common(3)}")


async def soak(told: argparse.Namespace) -> int:
    """Run everything, print the table, and return 0 if the server passed."""
    kinds: tuple[Ask, ...] = REST if told.rest_only else REST + GRPC
    draw, tally, samples, killed = random.Random(told.seed), Tally(), [], []
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        async with asked(told, Path(scratch)) as (server, target):
            await warm_up(target, kinds, draw, told)
            # Counted after the warm-up: buffers and pools that are created once must not count as growth.
            before, _ = await settled(server, target)
            watching = asyncio.create_task(watch(server, samples, told, killed))
            until = asyncio.get_running_loop().time() + told.seconds
            # A generator for each client, so that the order of answers does not change what the others send.
            clients = [random.Random(told.seed + number) for number in range(told.clients)]
            await asyncio.gather(
                *(
                    work(target, tally, kinds, each, until=until, giving_up=told.give_up, pause=told.pause_file)
                    for each in clients
                )
            )
            watching.cancel()
            after, left = await settled(server, target)
    print(table(tally))
    print(
        f"memory {before.bytes / 1e6:.0f} MB, {after.bytes / 1e6:.0f} at the end; {growth(samples):+.1%} after a tenth"
    )
    for name in ("handles", "sockets", "threads", "processes"):
        print(f"{name} {getattr(before, name)}, {getattr(after, name)} at the end")
    if killed:
        print(f"hosts killed: {len(killed)}")
        tally.errors.clear()  # requests of killed hosts must fail
    found = faults(before, after, samples, tally, told.growth, left)
    for fault in found:
        print(f"FAULT: {fault}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(soak(arguments())))
