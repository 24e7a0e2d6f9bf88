"""The launcher of hosts on nodes that were started by other means: by hand, or by Kubernetes."""

import asyncio
import errno
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from puna.process.cluster_tls import core_context, default_folder
from puna.request_log import without_request
from puna.runtime.errors import NodeError
from puna.runtime.launcher import Endpoint, HostRequirements
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
    """Starts each host on the node that runs the fewest, and of these on the one with the most free memory."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        """Connect to the nodes in the background, so that the operator reads at once which one is missing."""
        self._nodes = nodes
        self._connecting = [asyncio.create_task(self._connect(each), context=without_request()) for each in nodes]

    @property
    def machines(self) -> int:
        """Number of nodes, those that are down included."""
        return len(self._nodes)

    async def start(self, requirements: HostRequirements) -> Endpoint:
        """Start a host and wait until it listens. A node that cannot be used is passed over.

        Raises NodeError if no node can be used, and HostFailedError if the host does not start.
        """
        reasons = []
        for node in sorted(self._nodes, key=lambda each: (each.hosts, -each.free_bytes)):
            try:
                return await node.start(requirements)
            except NodeError as error:
                reasons.append(str(error))
        raise NodeError(f"no node can run the model: {'; '.join(reasons)}")

    def free_bytes(self) -> int:
        """Return the free memory of the node that has the most."""
        return max((each.free_bytes for each in self._nodes), default=0)

    async def aclose(self) -> None:
        """Give back the leases of all nodes."""
        for each in self._connecting:
            each.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        await asyncio.gather(*(each.aclose() for each in self._nodes))

    async def _connect(self, node: Node) -> None:
        try:
            await node.connect()
        except NodeError as error:
            log.warning("%s", error)
