"""A server whose nodes are in network namespaces, behind wires with delay and loss that are cut.

It needs a network namespace of its own, which `unshare` makes:

    unshare --net --mount python -m tools.soak.kills --launcher network
"""

import asyncio
import random
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tools.soak.kills.cluster import LEASE_SECONDS, Broken, StaticCluster
from tools.soak.kills.programs import below, hosts
from tools.soak.kills.wire import Wire, ip

NODES: Final = 3
NAMESPACES: Final = "/run/netns"
PORT: Final = 11436
DELAY_SECONDS: Final = 0.1
"""Delay of a slow wire in each direction."""
LOSS: Final = 0.05
CUT_SECONDS: Final = 0.8
"""How long a wire is cut without harm. A node may be silent for 2 s, and TCP repeats packets later and later."""
SETTLE_SECONDS: Final = 3.5


class NetworkCluster(StaticCluster):
    """A server and nodes, each behind a wire of its own."""

    kinds: Sequence[str] = ("delay", "loss", "blink", "partition", "long-partition", "node")

    def __init__(self, folder: Path) -> None:
        """Nothing is started yet."""
        super().__init__(folder, [f"198.18.{number}.2:{PORT}" for number in range(1, NODES + 1)])
        self._wires: list[Wire] = []
        self._lapse = False

    async def start_nodes(self) -> None:
        """Lay the wires, and start the nodes behind them."""
        ip("link", "set", "lo", "up")
        # A place for the names of namespaces that only this run sees.
        for words in (["mkdir", "-p", NAMESPACES], ["mount", "-t", "tmpfs", "netns", NAMESPACES]):
            await asyncio.to_thread(subprocess.run, words, check=True)
        for number, node in enumerate(self.nodes, 1):
            wire = Wire(number, random.Random(number))
            self._wires.append(wire)
            node.command = ["ip", "netns", "exec", wire.namespace, *node.command]
        await super().start_nodes()

    async def break_one(self, kind: str, draw: random.Random) -> Broken:
        """Slow down, damage or cut the wire of a node, or kill a node."""
        if kind == "node":
            return await super().break_one(kind, draw)
        running = hosts(self.run)
        busy = [each for each, node in enumerate(self.nodes) if below({node.pid}) & running]
        number = draw.choice(busy)
        wire, node = self._wires[number], self.nodes[number]
        at = time.monotonic()
        if kind in ("partition", "long-partition"):
            wire.loss = 1.0
            self._lapse = kind == "long-partition"
            return Broken(f"{kind} of {node.name}", at, frozenset(below({node.pid}) & running), retried=True)
        if kind == "blink":
            wire.loss = 1.0
            await asyncio.sleep(CUT_SECONDS)
            wire.heal()
        elif kind == "delay":
            wire.delay_seconds = DELAY_SECONDS
        else:
            wire.loss = LOSS
        return Broken(f"{kind} of {node.name}", at, frozenset(), settle_seconds=SETTLE_SECONDS)

    async def mend(self) -> None:
        """Make all wires good, and start again what was killed."""
        if self._lapse:
            # The node ends its hosts without its server.
            await asyncio.sleep(LEASE_SECONDS)
        self._lapse = False
        for each in self._wires:
            each.heal()
        await super().mend()
