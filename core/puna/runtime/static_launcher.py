"""The launcher of hosts on nodes that were started by other means: by hand, or by Kubernetes."""

import asyncio
import errno
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from puna.blocking import retrieve_exception
from puna.process.cluster_tls import core_context, default_folder
from puna.request_log import without_request
from puna.runtime.errors import NodeError
from puna.runtime.launcher import Endpoint, HostRequirements, HostResources, NodeStatus
from puna.runtime.node import Node
from puna.settings import Settings

log = logging.getLogger(__name__)

LARGEST_PORT: Final = 65535


def static_launcher(settings: Settings, next_socket: Callable[[], Path]) -> "StaticLauncher":
    """Return the launcher for the nodes of the settings. Raises OSError if a certificate or an address is not valid."""
    if not settings.hosts:
        raise OSError(errno.EINVAL, "the launcher `static` needs the addresses of nodes: --hosts, or PUNA_HOSTS")
    for each in settings.hosts:
        host, _, port = each.rpartition(":")
        if not (host and port.isdigit() and 0 < int(port) <= LARGEST_PORT):
            raise OSError(errno.EINVAL, f"PUNA_HOSTS has {each!r}, which is no `host:port`")
    context = core_context(settings.cluster_tls or default_folder() / "core")
    silence = settings.limits.max_node_silence_seconds
    return StaticLauncher([Node(each, context, next_socket, silence) for each in settings.hosts])


class StaticLauncher:
    """Starts each host on the node that runs the fewest, and of these on the one with the most free memory.

    Nodes that are not connected are connected all at once, so that a start takes no longer when many are down. A node
    that is lost meanwhile is not connected again by the same start.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        """Connect to the nodes in the background, so that the operator reads at once which one is missing."""
        self._nodes = nodes
        self._connecting: dict[Node, asyncio.Task[None]] = {}
        for task in map(self._connect, nodes):
            task.add_done_callback(_log_failure)

    @property
    def machines(self) -> int:
        """Number of nodes, those that are down included."""
        return len(self._nodes)

    async def start(self, requirements: HostRequirements) -> Endpoint:
        """Start a host and wait until it listens. A node that cannot be used is passed over.

        Raises NodeError if no node can be used, and HostFailedError if the host does not start.
        """
        reasons = {each: f"{each.address} is full" for each in self._nodes if each.address in requirements.avoid}
        nodes = [each for each in self._nodes if each not in reasons]
        missing = {self._connect(each): each for each in nodes if not each.connected}
        usable = [each for each in nodes if each not in missing.values()]
        while usable or missing:
            for node in sorted(usable, key=lambda each: (each.hosts, -each.free_bytes)):
                # The node counts the host from here on, so the next one starts elsewhere.
                requirements.on_placed()
                try:
                    return await node.start(requirements)
                except NodeError as error:
                    reasons[node] = str(error)
            usable = []
            if missing:
                connected, _ = await asyncio.wait(missing, return_when=asyncio.FIRST_COMPLETED)
                for task in connected:
                    node = missing.pop(task)
                    if task.cancelled() or (failure := task.exception()) is None:
                        usable.append(node)
                    else:
                        reasons[node] = str(failure)
        raise NodeError(f"no node can run the model: {'; '.join(reasons[each] for each in self._nodes)}")

    def nodes(self) -> list[NodeStatus]:
        """Return the nodes, those that are down included."""
        return [each.status() for each in self._nodes]

    def has_room(self, resources: HostResources) -> bool:  # noqa: ARG002 - only memory counts here
        """True: hosts share what there is."""
        return True

    def free_bytes(self) -> int:
        """Return the free memory of the node that has the most."""
        return max((each.free_bytes for each in self._nodes), default=0)

    async def aclose(self) -> None:
        """Give back the leases of all nodes."""
        tasks = list(self._connecting.values())
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(each.aclose() for each in self._nodes))

    def _connect(self, node: Node) -> "asyncio.Task[None]":
        """Return the task that connects to a node, which goes on if the request that needs it is given up."""
        task = self._connecting.get(node)
        if task is None:
            task = asyncio.create_task(node.connect(), context=without_request())
            self._connecting[node] = task
            task.add_done_callback(retrieve_exception)
            task.add_done_callback(lambda _: self._connecting.pop(node, None))
        return task


def _log_failure(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("%s", error)
