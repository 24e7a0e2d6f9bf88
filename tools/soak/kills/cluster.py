"""A server with nodes as they run in production, each in a process of its own, and the ways to break them."""

import asyncio
import os
import random
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from tools.bench.servers import free_port
from tools.soak.kills.programs import MARK, Program, below, hosts, parents, send

ROOT: Final = Path(__file__).parents[3]
PUNA: Final = str(Path(sys.executable).with_name("puna"))
SCRIPTED: Final = ROOT / "tests/plugins/scripted"
LEASE_SECONDS: Final = 4.0
NODES: Final = 3
SLOTS: Final = 32
"""Slots of each model, so that no stream waits for another one."""
READY: Final = re.compile(r"REST on (\S+), gRPC on (\S+)")
NODE_READY: Final = re.compile(r"node on (\S+)")


@dataclass(frozen=True, slots=True)
class Broken:
    """The part that was broken, and the time."""

    text: str
    at: float
    """By the monotonic clock."""
    hosts: frozenset[int]
    """Process ids of the hosts that cannot serve any more."""
    maybe: frozenset[int] = frozenset()
    """Those of hosts that may end for it."""
    retried: bool = False
    """True if a request that has sent no token yet runs once more."""
    core: bool = False
    """True if the server is gone, with every connection to it."""
    settle_seconds: float = 1.0
    """Time after which a stream that still gets tokens is not affected."""


class Cluster(Protocol):
    """A server and its nodes."""

    run: str
    """The value of MARK in the environment of its processes."""
    folder: Path
    kinds: Sequence[str]
    """The names of what can be broken."""
    core: Program
    url: str
    grpc: str

    async def __aenter__(self) -> Self:
        """Start everything."""

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End everything."""

    async def break_one(self, kind: str, draw: random.Random) -> Broken:
        """Break something of a kind."""

    async def mend(self) -> None:
        """Start what was broken again."""

    def programs(self) -> Sequence[Program]:
        """Return all programs, whose logs may have no traceback."""


class Server:
    """The server of a cluster, which keeps its addresses when it is started again.

    Derived classes have the nodes. The server starts after them and ends before them.
    """

    def __init__(self, folder: Path, launcher: Mapping[str, str]) -> None:
        """`launcher` has the variables that choose the launcher and its nodes."""
        self.run = uuid.uuid4().hex
        self.folder = folder
        rest, grpc = free_port(), free_port()
        self.url, self.grpc = f"http://127.0.0.1:{rest}", f"127.0.0.1:{grpc}"
        (folder / "run").mkdir(mode=0o700)
        (folder / "tmp").mkdir()
        paths = [str(SCRIPTED), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment = os.environ | {
            MARK: self.run,
            # Hosts get no further variables than these.
            "PUNA_PASS_ENVIRONMENT": MARK,
            "PYTHONPATH": os.pathsep.join(paths),
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "TMPDIR": str(folder / "tmp"),
        }
        own = {
            "OLLAMA_HOST": f"127.0.0.1:{rest}",
            "PUNA_GRPC_HOST": self.grpc,
            "OLLAMA_MODELS": str(folder / "models"),
            "PUNA_BATCHES": str(folder / "batches"),
            "OLLAMA_NUM_PARALLEL": str(SLOTS),
        }
        environment = self.environment | own | launcher
        self.core = Program("the server", [PUNA, "serve"], environment, READY, folder / "server.log")
        self.stopped: set[int] = set()
        """Nodes that were stopped, and not killed."""

    async def start_nodes(self) -> None:
        """Start what runs beside the server."""
        raise NotImplementedError

    async def end_nodes(self) -> None:
        """End what runs beside the server, if it runs."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        try:
            await self.start_nodes()
            await self.core.start()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.core.end()
        finally:
            await self.end_nodes()

    def continue_stopped(self) -> None:
        """Continue the nodes that were stopped."""
        for pid in self.stopped:
            send(pid, signal.SIGCONT)
        self.stopped.clear()


class StaticCluster(Server):
    """A server with nodes that `puna node run` serves, and the launcher `static`."""

    kinds: Sequence[str] = ("host", "hosts", "node", "nodes", "stop", "core")

    def __init__(self, folder: Path, addresses: Sequence[str] = ()) -> None:
        """`addresses` are those of the nodes; empty: three on this machine. Nothing is started yet."""
        addresses = addresses or [f"127.0.0.1:{free_port()}" for _ in range(NODES)]
        super().__init__(
            folder,
            {
                "PUNA_LAUNCHER": "static",
                "PUNA_HOSTS": ",".join(addresses),
                "PUNA_CLUSTER_TLS": str(folder / "cluster/core"),
            },
        )
        own = {"PUNA_CLUSTER_TLS": str(folder / "cluster/node")}
        words = [PUNA, "node", "run", "--lease", str(LEASE_SECONDS), "--listen"]
        self.nodes = [
            Program(f"node {each}", [*words, each], self.environment | own, NODE_READY, folder / f"node-{number}.log")
            for number, each in enumerate(addresses)
        ]

    async def start_nodes(self) -> None:
        """Make certificates, and start the nodes."""
        words = ("node", "certificates", str(self.folder / "cluster"))
        made = await asyncio.create_subprocess_exec(PUNA, *words, stdout=subprocess.DEVNULL)
        if await made.wait():
            raise RuntimeError("the certificates were not made")
        await asyncio.gather(*(each.start() for each in self.nodes))

    async def end_nodes(self) -> None:
        """End the nodes."""
        await asyncio.gather(*(each.end() for each in self.nodes))

    def programs(self) -> Sequence[Program]:
        """Return the server and the nodes."""
        return [self.core, *self.nodes]

    async def break_one(self, kind: str, draw: random.Random) -> Broken:
        """Kill hosts, nodes or the server, or stop a node, which then looks like one behind a cut cable."""
        running = sorted(hosts(self.run))
        if kind == "core":
            return self._signal("the server", [self.core.pid], signal.SIGKILL, core=True)
        if kind == "hosts":
            return self._signal("all hosts", running, signal.SIGKILL)
        if kind == "nodes":
            return self._signal("all nodes", [each.pid for each in self.nodes], signal.SIGKILL)
        if kind == "host":
            pid = draw.choice(running)
            return self._signal(f"host {pid}", [pid], signal.SIGKILL)
        # A node without a host would be of little interest.
        table = parents()
        busy = [each for each in self.nodes if each.pid in {table[pid] for pid in running if pid in table}]
        node = draw.choice(busy or self.nodes)
        if kind == "stop":
            self.stopped.add(node.pid)
            return self._signal(f"{node.name} (stopped)", [node.pid], signal.SIGSTOP)
        return self._signal(node.name, [node.pid], signal.SIGKILL)

    def _signal(self, text: str, pids: Sequence[int], number: int, *, core: bool = False) -> Broken:
        gone = frozenset(below(set(pids)) & hosts(self.run))
        at = time.monotonic()
        for pid in pids:
            send(pid, number)
        return Broken(text, at, gone, retried=len(pids) == 1 and not core, core=core)

    async def mend(self) -> None:
        """Start again what was killed, and continue what was stopped."""
        self.continue_stopped()
        gone = [each for each in self.programs() if not each.runs]
        await asyncio.gather(*(each.end() for each in gone))
        await asyncio.gather(*(each.start() for each in gone))


MakeCluster = Callable[[Path], Cluster]
"""Returns a cluster that is not started yet, with its files in a folder."""
