"""The launcher of hosts on this machine, as child processes that listen on Unix sockets."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from puna.host.stream import address, connect
from puna.runtime import memory
from puna.runtime.host_process import HostProcess
from puna.runtime.launcher import Endpoint, HostRequirements, HostResources, NodeStatus


class LocalLauncher:
    """Starts host processes on this machine."""

    def __init__(self, next_socket: Callable[[], Path]) -> None:
        """`next_socket` returns a new path for each host."""
        self._next_socket = next_socket

    @property
    def machines(self) -> int:
        """1: hosts run on this machine."""
        return 1

    async def start(self, requirements: HostRequirements) -> Endpoint:
        """Start a host process and wait until it listens. Raises HostFailedError."""
        requirements.on_placed()
        socket = self._next_socket()
        host = await HostProcess.start(requirements.backend, socket, requirements.ready_seconds, requirements.label)
        return Endpoint(
            host=host,
            address=f"unix:{socket}",
            open_stream=partial(connect, address(socket)),
            release=host.stop,
        )

    def nodes(self) -> tuple[NodeStatus, ...]:
        """Return nothing: all hosts run on this machine."""
        return ()

    def has_room(self, resources: HostResources) -> bool:  # noqa: ARG002 - only memory counts here
        """True: hosts share what there is."""
        return True

    def free_bytes(self) -> int:
        """Return the free memory of this machine."""
        return memory.free_bytes()

    async def aclose(self) -> None:
        """Do nothing: each host is released by its owner."""
