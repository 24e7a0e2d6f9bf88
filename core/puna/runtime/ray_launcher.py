"""The launcher of hosts on a Ray cluster.

Theory. Ray chooses the machine, and an actor there starts a node (`puna node run`) for the one host. From then on the
core speaks to that node as to any other: by mutual TLS, under a lease, and without Ray. So no token passes through Ray,
and a head that dies ends no stream: only starts fail until it is back.

Each core makes certificates of its own when it starts, in memory. A node gets its certificate and that of the authority
through its actor. The authority signs nothing else, so cores that share a cluster cannot use each other's nodes.

A process of its own holds the connection to the cluster (`ray_connection`). When it ends, another one is started at
once, which waits for the head if that is gone. Starts wait for the new connection for as long as it may take, if the
head still runs. After an end of the head, or an attempt to connect that has failed, they wait for RECONNECT_SECONDS and
then fail with an error that says so, since no one can say when a cluster is whole again.
"""

import asyncio
import errno
import importlib.util
import itertools
import logging
import os
import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from puna.blocking import retrieve_exception
from puna.process import cluster_certificates
from puna.process.cluster_tls import core_context_of
from puna.request_log import without_request
from puna.runtime.errors import NodeError
from puna.runtime.gpu_demand import demand, fits, has_room
from puna.runtime.launcher import Endpoint, HostRequirements, HostResources, NodeStatus
from puna.runtime.node import CORE_ID, Node
from puna.runtime.ray_connection import PROGRAM, PlacedNode, RayConnection, RayNode
from puna.settings import Settings

log = logging.getLogger(__name__)

LEASE_SECONDS: Final = 10.0
"""How long a node outlives a core that is gone without closing its connections."""
PING_SECONDS: Final = 2.0
"""How long the head may take to accept a connection."""
RECONNECT_SECONDS: Final = 2.5
"""How long a start waits for the connection to a head that was gone."""
UNREACHED_SECONDS: Final = 1.0
"""How long a head counts as gone that could not be reached."""
KEPT_BASES: Final = 1000
"""Number of weights of which the machines are remembered that have had them."""


def ray_launcher(settings: Settings, next_socket: Callable[[], Path]) -> "RayLauncher":
    """Return the launcher for a Ray cluster. Raises OSError if Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise OSError(errno.ENOENT, "the launcher `ray` needs the extra `ray`: pip install 'puna[ray]'")
    limits = settings.limits
    return RayLauncher(next_socket, limits.max_node_silence_seconds, limits.max_placement_seconds)


class RayLauncher:
    """Starts each host in a node of its own, on a machine that Ray chooses."""

    def __init__(
        self,
        next_socket: Callable[[], Path],
        silence_seconds: float,
        placement_seconds: float,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        """Connect in the background. `placement_seconds` is how long a host may wait for room on the cluster."""
        certificates = cluster_certificates.issue()
        self._context = core_context_of(certificates["core"])
        self._certificate = certificates["node"]
        self._next_socket = next_socket
        self._silence_seconds = silence_seconds
        self._placement_seconds = placement_seconds
        self._program = program
        self._numbers = itertools.count(1)
        self._nodes: dict[int, Node] = {}
        """The nodes that run, by numbers of their own."""
        self._placed: dict[int, tuple[PlacedNode, float]] = {}
        """Where each of them runs, and the GPUs that it has."""
        self._bases: OrderedDict[str, list[str]] = OrderedDict()
        """The machines that have run hosts of a base, the last one at the end."""
        self._connection: RayConnection | None = None
        self._connecting: asyncio.Task[RayConnection] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._headless = False
        """True from the end of the head until there is a connection again."""
        self._refusal = ""
        """Why the last attempt to connect has failed; empty if it has not."""
        self._wait_until: float | None = None
        """See `_patience`. None: no start has waited since the end of the head."""
        self._unreached: tuple[float, str] | None = None
        """When the head could not be reached, by the loop's clock, and the error; None: it could."""
        self._connect().add_done_callback(_log_failure)

    @property
    def machines(self) -> int:
        """Number of machines of the cluster."""
        return max(len(self._machines), 1)

    async def start(self, requirements: HostRequirements) -> Endpoint:
        """Start a host and wait until it listens.

        Raises NodeError if the cluster cannot start one, and HostFailedError if the host does not start.
        """
        connection = await self._connected()
        number = next(self._numbers)
        wanted = self._wanted(requirements, number)
        taken = HostResources(cpus=wanted["cpus"], gpus=wanted["gpus"], memory_bytes=wanted["memory_bytes"])
        before = connection.nodes

        def on_place(node_id: str) -> None:
            connection.note_taken(node_id, taken, before)
            requirements.on_placed()

        placed = await connection.start(wanted, on_place)
        node = Node(placed.address, self._context, self._next_socket, self._silence_seconds)
        self._nodes[number] = node
        self._placed[number] = placed, wanted["gpus"]

        async def give_back() -> None:
            self._nodes.pop(number, None)
            self._placed.pop(number, None)
            # The node ends with its lease, and the actor with the node. The actor's end covers a node that is cut off.
            await node.aclose()
            connection.end(placed.key)
            # The head will tell in a moment. Until then a load would evict another model.
            connection.note_free(placed.node_id, taken)

        try:
            await node.connect()
            endpoint = await node.start(requirements)
        except BaseException:
            await asyncio.shield(give_back())
            raise
        self._remember(requirements.base, placed)

        async def release() -> None:
            try:
                await endpoint.release()
            finally:
                await give_back()

        return replace(endpoint, release=release)

    def nodes(self) -> list[NodeStatus]:
        """Return the nodes that run, each with its host."""
        return [each.status() for each in self._nodes.values()]

    def has_room(self, resources: HostResources) -> bool:
        """Return whether a machine has these resources free, or none would have them if all hosts ended."""
        asked = demand(resources, self._machines)
        machines = [each for each in asked.machines if fits(asked.resources, each.total)]
        return not (machines and self._nodes) or any(has_room(asked.resources, each) for each in machines)

    def free_bytes(self) -> int:
        """Return the memory of the machine that has the most, less what Ray has given to others; 0: unknown."""
        return max((each.free.memory_bytes for each in self._machines), default=0)

    async def aclose(self) -> None:
        """Disconnect from the cluster. A cluster that was started for this server ends."""
        tasks = [task for task in (self._watching, self._connecting) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(each.aclose() for each in self._nodes.values()))
        if self._connection is not None:
            await self._connection.aclose()

    @property
    def _machines(self) -> tuple[RayNode, ...]:
        """The machines of the cluster, with the parts of GPUs that hosts of this core have."""
        nodes = self._connection.nodes if self._connection is not None else ()
        used: dict[str, dict[str, float]] = {}
        for placed, gpus in self._placed.values():
            parts = used.setdefault(placed.node_id, {})
            for each in placed.gpu_ids:
                parts[each] = parts.get(each, 0.0) + min(gpus, 1.0)
        return tuple(replace(each, used_gpus=used[each.node_id]) if each.node_id in used else each for each in nodes)

    def _wanted(self, requirements: HostRequirements, number: int) -> dict[str, Any]:
        """Return the request for the node of a host; see `puna.runtime.ray_driver`."""
        asked = demand(requirements.resources, self._machines)
        needed = asked.resources
        ids = {each.node_id for each in asked.machines if has_room(needed, each)}
        near = next((each for each in reversed(self._bases.get(requirements.base, [])) if each in ids), "")
        return {
            # For people who look at the cluster.
            "name": f"{requirements.label} {socket.gethostname()}:{os.getpid()}-{number} {CORE_ID[:8]}",
            "cpus": needed.cpus,
            "gpus": needed.gpus,
            "memory_bytes": needed.memory_bytes,
            "near": near,
            "only": [] if asked.everywhere else [each.node_id for each in asked.machines],
            "certificate": self._certificate,
            "lease_seconds": LEASE_SECONDS,
            "placement_seconds": self._placement_seconds,
        }

    def _remember(self, base: str, placed: PlacedNode) -> None:
        """Note that a machine has had the files of a base."""
        if not base:
            return
        known = [each for each in self._bases.pop(base, []) if each != placed.node_id]
        self._bases[base] = [*known, placed.node_id]
        if len(self._bases) > KEPT_BASES:
            self._bases.popitem(last=False)

    async def _connected(self) -> RayConnection:
        """Return a connection through which hosts can be started. Raises NodeError."""
        connection = self._connection
        if connection is None or not connection.usable:
            opening = self._connect()
            if address := self._last_address:
                await self._reach(address)
            try:
                async with asyncio.timeout_at(self._patience()):
                    connection = await asyncio.shield(opening)
            except TimeoutError:
                text = f"Ray's head {address} was gone, and the connection to it is not open again yet"
                raise NodeError(self._refusal or text) from None
        connection.check()
        return connection

    @property
    def _last_address(self) -> str:
        """The address of the cluster of the last connection; empty if there was none, or the cluster ended with it."""
        return self._connection.address if self._connection is not None and not self._connection.local else ""

    def _patience(self) -> float | None:
        """Return until when starts wait for the connection, by the loop's clock; None: for as long as it takes.

        All starts after one end of the head share this time. They follow each other, so the times of several would
        add up for the last one.
        """
        if not self._headless and not self._refusal:
            return None
        if self._wait_until is None:
            self._wait_until = asyncio.get_running_loop().time() + RECONNECT_SECONDS
        return self._wait_until

    async def _reach(self, address: str) -> None:
        """Raise NodeError if the head is gone. A process that connects would wait for it.

        A head that was gone a moment ago counts as gone still.
        """
        clock = asyncio.get_running_loop().time
        if self._unreached is not None and clock() - self._unreached[0] < UNREACHED_SECONDS:
            raise NodeError(self._unreached[1])
        try:
            await _ping(address)
        except NodeError as error:
            self._headless, self._wait_until, self._unreached = True, None, (clock(), str(error))
            raise
        self._unreached = None

    async def _watch(self, connection: RayConnection) -> None:
        """Open another connection when one has ended."""
        await connection.ended()
        log.warning("the process that uses the Ray cluster has ended, and another one is started")
        self._headless = self._headless or connection.silent
        self._connect().add_done_callback(_log_failure)
        if address := self._last_address:
            with suppress(NodeError):
                await self._reach(address)

    def _connect(self) -> "asyncio.Task[RayConnection]":
        """Return the task that connects, which goes on if the request that needs it is given up."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._open(), context=without_request())
            self._connecting.add_done_callback(retrieve_exception)
            self._connecting.add_done_callback(self._disconnected)
        return self._connecting

    def _disconnected(self, _: object) -> None:
        self._connecting = None

    async def _open(self) -> RayConnection:
        """Connect to the cluster, the same one as before. Raises NodeError."""
        address = self._last_address
        if self._connection is not None:
            await self._connection.aclose()
        connection = RayConnection(address, self._program)
        try:
            await connection.open(wait=bool(address))
        except BaseException as error:
            if isinstance(error, NodeError):
                self._refusal, self._wait_until = str(error), None
            await asyncio.shield(connection.aclose())
            raise
        kind = "a Ray cluster on this machine" if connection.local else "the Ray cluster"
        log.info("hosts run on %s, %s, with %d machines", kind, connection.address, len(connection.nodes))
        self._connection, self._headless, self._refusal, self._wait_until = connection, False, "", None
        self._watching = asyncio.create_task(self._watch(connection), context=without_request())
        return connection


async def _ping(address: str) -> None:
    """Raise NodeError if nothing accepts connections at an address."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(PING_SECONDS):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        writer.close()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else f"no answer within {PING_SECONDS:g} s"
        raise NodeError(f"Ray's head {address} cannot be reached: {reason}") from None


def _log_failure(task: "asyncio.Task[RayConnection]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("%s", error)
