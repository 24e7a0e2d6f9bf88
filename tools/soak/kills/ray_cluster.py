"""A server whose models run on a Ray cluster, and the ways to break it.

The nodes of the cluster are processes of this machine (tests/ray/cluster_program.py). A node of Puna belongs to
each host. It outlives its raylet and the head, so a stream ends only with its host, its node, its actor or the server.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tools.bench.servers import free_port
from tools.soak.kills.cluster import ROOT, Broken, Server
from tools.soak.kills.programs import (
    Program,
    ProgramError,
    below,
    command,
    give_priority,
    hosts,
    marked,
    parents,
    send,
)

PROGRAM: Final = ROOT / "tests/ray/cluster_program.py"
PACKAGES: Final = Path(sys.prefix) / "ray/packages"
"""Where `make test-ray` keeps Ray."""
NODES: Final = 3
AGENT: Final = "RAY_RAYLET_PID"
"""The variable in which processes of a machine have the process id of its raylet."""
RETRIED: Final = ("host", "hosts", "node", "stop", "machine")
"""The kinds of kills that do no harm to requests that have sent no token."""
ATTEMPTS: Final = 4
CPUS: Final = 16
"""CPUs of each node, as Ray counts them: nodes that still end must not take the room of new ones."""
ACTOR_SECONDS: Final = 6.0
"""How long a node may take to end after its actor was killed. It first waits whether the raylet has died, too."""


class RayCluster(Server):
    """A server with the launcher `ray`."""

    kinds: Sequence[str] = ("host", "hosts", "node", "stop", "machine", "actor", "raylet", "head", "driver", "core")

    def __init__(self, folder: Path, nodes: int = NODES) -> None:
        """`nodes` is how many nodes Ray has. Nothing is started yet."""
        self._nodes = nodes
        self._port = free_port()
        super().__init__(folder, {"PUNA_LAUNCHER": "ray", "RAY_ADDRESS": f"127.0.0.1:{self._port}"})
        (folder / "ray").mkdir()
        ray = {
            "PYTHONPATH": os.pathsep.join([self.environment["PYTHONPATH"], str(PACKAGES)]),
            "RAY_TMPDIR": str(folder / "ray"),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            # Ray gives up early on a busy machine, so it gets more time, and further attempts.
            "RAY_raylet_start_wait_time_s": "60",
            "RAY_agent_register_timeout_ms": "120000",
            "RAY_worker_register_timeout_seconds": "120",
        }
        self.environment = self.environment | ray
        self.core.environment = dict(self.core.environment) | ray
        self._ray: subprocess.Popen[str] | None = None
        self._head = 0
        self._raylets: list[int] = []

    def programs(self) -> Sequence[Program]:
        """Return the server. Ray keeps the logs of the nodes."""
        return [self.core]

    async def break_one(self, kind: str, draw: random.Random) -> Broken:
        """Kill a part of the server or of Ray, or stop a node of Puna."""
        number, settle = signal.SIGKILL, 1.0
        match kind:
            case "core":
                pids = [self.core.pid]
            case "driver":
                pids = self._like("puna.runtime.ray_driver")
            case "head":
                pids = [self._head]
            case "raylet":
                pids = [draw.choice(self._raylets)]
            case "actor":
                pids, settle = [draw.choice(self._like("HostActor"))], ACTOR_SECONDS
            case "hosts":
                pids = sorted(hosts(self.run))
            case "machine":
                pids = self._machine(draw)
            case "host":
                pids = [draw.choice(sorted(hosts(self.run)))]
            case _:
                pids = [draw.choice([pid for pid in self._like("--supervised") if below({pid}) & hosts(self.run)])]
        if kind == "stop":
            number = signal.SIGSTOP
            self.stopped.update(pids)
        gone = frozenset(below(set(pids)) & hosts(self.run)) if kind in RETRIED else frozenset()
        maybe = frozenset(hosts(self.run)) if kind == "actor" else frozenset()
        at = time.monotonic()
        for pid in pids:
            send(pid, number)
        return Broken(
            f"{kind} {pids}", at, gone, maybe, retried=kind in RETRIED, core=kind == "core", settle_seconds=settle
        )

    async def mend(self) -> None:
        """Start again what was killed, and continue what was stopped."""
        self.continue_stopped()
        alive = parents()
        try:
            for dead in [each for each in self._raylets if each not in alive]:
                self._raylets.remove(dead)
                await self._add()
        except ProgramError:
            # Ray's program has ended with the rest of the cluster.
            self._head = 0
        if self._head not in alive:
            await self.start_nodes()
        if not self.core.runs:
            await self.core.end()
            await self.core.start()

    def _machine(self, draw: random.Random) -> list[int]:
        """Return the processes of a machine that runs hosts: its raylet, the workers, and the nodes of Puna."""
        machines = {raylet: [pid for pid in self._like("--supervised") if on(pid, raylet)] for raylet in self._raylets}
        raylet = draw.choice([each for each, nodes in machines.items() if nodes])
        return [raylet, *sorted(below({raylet}) - {raylet}), *machines[raylet]]

    def _like(self, text: str) -> list[int]:
        """Return the processes of the run whose command line has a text."""
        return sorted(pid for pid in marked(self.run) if text in command(pid))

    async def start_nodes(self) -> None:
        """Start Ray in place of what is left of it, again if it does not come up. Raises ProgramError."""
        for attempt in range(1, ATTEMPTS + 1):
            await self.end_nodes()
            try:
                await self._start_ray_once()
            except ProgramError:
                if attempt == ATTEMPTS:
                    raise
            else:
                return

    async def _start_ray_once(self) -> None:
        with (self.folder / "ray.log").open("ab") as log:
            self._ray = subprocess.Popen(  # noqa: ASYNC220 - see Program.start
                [sys.executable, str(PROGRAM)],
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        give_priority(self._ray.pid)
        self._raylets = []
        for number in range(self._nodes):
            told = await self._add(**({} if number else {"port": self._port}))
            self._head = told["head"]

    async def _add(self, **more: int) -> dict[str, Any]:
        told: dict[str, Any] = await asyncio.to_thread(self._ask, {"cpus": CPUS, **more})
        self._raylets.append(told["raylet"])
        return told

    def _ask(self, request: dict[str, int]) -> dict[str, Any]:
        if self._ray is None or self._ray.stdin is None or self._ray.stdout is None:
            raise RuntimeError("Ray does not run")
        self._ray.stdin.write(json.dumps(request) + "\n")
        self._ray.stdin.flush()
        if not (line := self._ray.stdout.readline()):
            raise ProgramError(f"Ray does not start: {(self.folder / 'ray.log').read_text()[-3000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def end_nodes(self) -> None:
        """End the processes of Ray, and no node of Puna."""
        if self._ray is None:
            return
        # Its processes have sessions of their own, and those of a head that was killed do not end in order.
        for pid in below({self._ray.pid}) & set(marked(self.run)):
            if "--supervised" not in command(pid) and pid not in hosts(self.run):
                send(pid, signal.SIGKILL)
        await asyncio.to_thread(self._ray.wait)
        for pipe in (self._ray.stdin, self._ray.stdout):
            if pipe is not None:
                pipe.close()
        self._ray = None


def on(pid: int, raylet: int) -> bool:
    """Return whether a process was started on the machine of a raylet."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return f"{AGENT}={raylet}".encode() in environment.split(b"\0")
