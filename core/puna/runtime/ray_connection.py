"""The core's side of the process through which it uses a Ray cluster; see `puna.runtime.ray_driver`."""

import asyncio
import itertools
import json
import logging
import math
import os
import sys
from asyncio.subprocess import PIPE
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

from puna.process import child_environment
from puna.request_log import without_request
from puna.runtime.errors import NodeError, NodeLostError
from puna.runtime.launcher import HostResources
from puna.variables import NODE, read_by

log = logging.getLogger(__name__)

PROGRAM: Final = (sys.executable, "-m", "puna.runtime.ray_driver")
CONNECT_SECONDS: Final = 120.0
"""How long it may take to connect to a cluster, or to start one on this machine."""
SILENT_SECONDS: Final = 2.5
"""Silence after which the cluster's head counts as gone. It is asked twice a second."""
TOLD_SECONDS: Final = 2.0
"""How long the head may take to tell what a new host has taken. It is asked twice a second, and hears of it late."""
CHECK_SECONDS: Final = 0.1
"""Pause between two looks whether a start that waits can still succeed."""
CLOSE_SECONDS: Final = 10.0
"""How long the process may take to end by itself."""
LONGEST_LINE: Final = 16 << 20
"""Bytes of a message: the machines of a cluster of some ten thousand."""
KEPT_LINES: Final = 10
"""Lines of the process's output that are kept for the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RayNode:
    """A machine of the cluster."""

    node_id: str
    host: str
    free: HostResources
    total: HostResources
    gpu_bytes: int = 0
    """Memory of one of its GPUs, of the smallest if they differ; 0: unknown."""
    used_gpus: Mapping[str, float] = field(default_factory=dict)
    """The parts of its GPUs that hosts of this core have, by Ray's names for the GPUs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedNode:
    """A node that an actor has started for one host."""

    key: int
    """The number of the request that started the node; `RayConnection.end` takes it."""
    node_id: str
    """The machine on which it runs."""
    address: str
    gpu_ids: tuple[str, ...] = ()
    """Ray's names of the GPUs that its host sees."""


class ClusterFullError(NodeError):
    """No machine of the cluster has room for a host."""


class RayConnection:
    """A connection to a Ray cluster. It cannot be opened again after its end."""

    def __init__(self, address: str = "", program: Sequence[str] = PROGRAM) -> None:
        """`address` is that of the cluster's head; empty: Ray's settings name it."""
        self.address = address
        self.local = False
        """True if this connection has started the cluster, which ends with the connection."""
        self.told: tuple[RayNode, ...] = ()
        """The machines, as the head told last."""
        self._left: dict[str, tuple[float, HostResources]] = {}
        """By machine: until when the head may not know of new hosts, by the loop's clock, and what they leave free."""
        self._program = program
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._answers: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self._on_place: dict[int, Callable[[str], None]] = {}
        self._keys = itertools.count(1)
        self._reached = asyncio.Event()
        """Set once the head is there that the process waits for."""
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._listed = asyncio.Event()
        self._heard_at = -math.inf
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)

    @property
    def nodes(self) -> tuple[RayNode, ...]:
        """The machines, with what is free on each."""
        now = asyncio.get_running_loop().time()
        self._left = {node_id: each for node_id, each in self._left.items() if each[0] > now}
        left = {node_id: resources for node_id, (_, resources) in self._left.items()}
        return tuple(
            replace(each, free=_smaller(each.free, left[each.node_id])) if each.node_id in left else each
            for each in self.told
        )

    @property
    def usable(self) -> bool:
        """True while the process runs."""
        return self._reading is not None and not self._reading.done()

    @property
    def silent(self) -> bool:
        """True if the head has not answered for a while."""
        return asyncio.get_running_loop().time() - self._heard_at > SILENT_SECONDS

    async def open(self, *, wait: bool = False) -> None:
        """Connect to the cluster. Raises NodeError if that fails.

        `wait` lets the process wait for the head of `address`, with Ray imported, however long that takes.
        """
        self._process = await asyncio.create_subprocess_exec(
            *self._program,
            self.address,
            *(("wait",) if wait else ()),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            limit=LONGEST_LINE,
            env=_variables(),
            start_new_session=True,  # Ctrl-C in a terminal reaches the core alone
        )
        self._reading = asyncio.create_task(self._read(self._process), context=without_request())
        try:
            if wait:
                await self._reached.wait()
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._opened
                await self._listed.wait()
        except TimeoutError:
            raise NodeError(f"Ray has not connected to a cluster within {CONNECT_SECONDS:g} s") from None

    async def start(self, wanted: Mapping[str, Any], on_place: Callable[[str], None] = lambda _: None) -> PlacedNode:
        """Start the node of a host; `wanted` is the request. Cancelling gives it up.

        `on_place` is called with the id of the machine as soon as Ray has chosen it.

        Raises NodeError if it does not start, NodeLostError if the process ends, and ClusterFullError if there is no
        room.
        """
        key = next(self._keys)
        answer = self._answers[key] = asyncio.get_running_loop().create_future()
        self._on_place[key] = on_place
        try:
            self._write({"id": key, "start": wanted})
            while not answer.done():
                self.check()
                await asyncio.wait({answer}, timeout=CHECK_SECONDS)
            found = answer.result()
        except BaseException:
            self.end(key)
            raise
        finally:
            del self._answers[key], self._on_place[key]
        if error := found.get("error"):
            raise (ClusterFullError if found.get("full") else NodeError)(f"Ray: {error}")
        gpu_ids = tuple(found.get("gpu_ids", ()))
        return PlacedNode(key=key, node_id=found["node_id"], address=found["address"], gpu_ids=gpu_ids)

    def end(self, key: int) -> None:
        """End the actor of a node."""
        if self.usable:
            self._write({"id": key, "end": True})

    def note_free(self, node_id: str, resources: HostResources) -> None:
        """Count resources of a machine as free until the head tells what is."""
        self.told = tuple(
            replace(each, free=_sum(each.free, resources)) if each.node_id == node_id else each for each in self.told
        )
        if (left := self._left.get(node_id)) is not None:
            self._left[node_id] = left[0], _sum(left[1], resources)

    def note_taken(self, node_id: str, resources: HostResources, before: Iterable[RayNode]) -> None:
        """Count resources of a machine as taken, although the head may not tell so at once.

        `before`: the machines as they were when the host was asked for. The head may have told of the host since.
        """
        if (node := next((each for each in before if each.node_id == node_id), None)) is not None:
            now, left = asyncio.get_running_loop().time(), _sum(node.free, resources, -1)
            noted = self._left.get(node_id)
            if noted is not None and noted[0] > now:
                left = _smaller(left, noted[1])
            self._left[node_id] = now + TOLD_SECONDS, left

    def check(self) -> None:
        """Raise NodeError if no host can be started now, NodeLostError if another connection may do."""
        if not self.usable:
            raise NodeLostError(f"the connection to Ray's head {self.address} has ended")
        if self.silent:
            raise NodeError(
                f"Ray's head {self.address} does not answer: loaded models are served, but no model can be loaded"
            )

    async def ended(self) -> None:
        """Wait until the process has ended."""
        if self._reading is not None:
            await asyncio.wait({self._reading})

    async def aclose(self) -> None:
        """End the process, and the cluster if the process has started it."""
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), CLOSE_SECONDS)
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if self._reading is not None:
            await asyncio.wait({self._reading}, timeout=1)
            self._reading.cancel()

    def _write(self, message: Mapping[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        errors = asyncio.create_task(self._keep(process.stderr))
        reason = "the process that connects to Ray has ended"
        try:
            async for line in process.stdout:
                self._take(json.loads(line))
        # A line that is too long or no JSON: nothing else of the process can be believed.
        except ValueError as error:
            reason = f"the process that connects to Ray answers nonsense: {error}"
        finally:
            with suppress(ProcessLookupError):
                if process.returncode is None and process.stdin is not None and not process.stdin.is_closing():
                    process.kill()
            await asyncio.wait({errors}, timeout=1)
            errors.cancel()
            self._lose(reason)

    def _take(self, message: Mapping[str, Any]) -> None:
        if (key := message.get("id")) is not None:
            if (node_id := message.get("placed")) is not None:
                if (on_place := self._on_place.get(key)) is not None:
                    on_place(node_id)
            elif (answer := self._answers.get(key)) is not None and not answer.done():
                answer.set_result(message)
            return
        match message["event"]:
            case "reached":
                self._reached.set()
            case "connected":
                self.address, self.local = message["address"], message["local"]
                self._opened.set_result(None)
            case "failed":
                self._fail(f"Ray cannot be used: {message['error']}")
                return
            case "nodes":
                self.told = tuple(_node(each) for each in message["nodes"])
                self._listed.set()
        self._heard_at = asyncio.get_running_loop().time()

    def _lose(self, reason: str) -> None:
        """Fail everything that waits for the process."""
        if self._lines:
            log.debug("the process that connects to Ray has ended:\n%s", "\n".join(self._lines))
        self._fail(f"{reason}: {self._lines[-1]}" if self._lines else reason)
        self._reached.set()
        self._listed.set()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(NodeLostError(reason))

    def _fail(self, reason: str) -> None:
        if not self._opened.done():
            self._opened.set_exception(NodeError(reason))
            self._opened.exception()  # it counts as retrieved

    async def _keep(self, stream: asyncio.StreamReader) -> None:
        with suppress(ValueError):  # a line that is too long
            async for line in stream:
                self._lines.append(line.decode(errors="replace").rstrip())


def _node(told: Mapping[str, Any]) -> RayNode:
    free, total = HostResources(**told["free"]), HostResources(**told["total"])
    return RayNode(node_id=told["id"], host=told["host"], free=free, total=total, gpu_bytes=told.get("gpu_bytes", 0))


def _sum(one: HostResources, other: HostResources, sign: int = 1) -> HostResources:
    return HostResources(
        memory_bytes=one.memory_bytes + sign * other.memory_bytes,
        cpus=one.cpus + sign * other.cpus,
        gpus=one.gpus + sign * other.gpus,
    )


def _smaller(one: HostResources, other: HostResources) -> HostResources:
    return HostResources(
        memory_bytes=min(one.memory_bytes, other.memory_bytes),
        cpus=min(one.cpus, other.cpus),
        gpus=min(one.gpus, other.gpus),
    )


def _variables() -> dict[str, str]:
    """Return the environment of the process, which the workers of a local cluster inherit."""
    own = {name: os.environ[name] for name in read_by(NODE) if name in os.environ}
    # The cluster's own password is among Ray's variables, and the server's are among those that are not passed.
    return {**child_environment.environment(names=("RAY_*",)), **own}
