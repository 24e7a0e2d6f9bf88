"""Launchers start hosts. The pool does not know where a host runs.

Theory. A backend's host is one program, which listens on a Unix socket of its machine. A launcher starts it somewhere
and returns an endpoint: the address of a gRPC channel, a way to open the Run stream, and the process to watch. The
process may run on this machine (`local_launcher`) or on another one; the core loads models, runs sequences
and notices hangs in the same way.

A launcher that is closed starts no further host. The hosts that it has started are released by their owners.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeAlias

import grpc

from puna.backend import ModelSpec
from puna.host.stream import Frames
from puna.plugins import Plugin


class RunningHost(Protocol):
    """The process of a host, as the core watches it."""

    on_output: Callable[[], None]
    """Called whenever the process writes something."""
    on_progress: Callable[[float], None]
    """Called with the progress of a load that the host reports beside its gRPC stream."""

    @property
    def pid(self) -> int:
        """Its process id on this machine; 0 if it runs on another one."""

    @property
    def node(self) -> str:
        """Address of the node on which it runs; empty: this machine."""

    @property
    def process_id(self) -> int:
        """Its process id on the machine on which it runs."""

    @property
    def title(self) -> str:
        """The host in log lines: "host 4711"."""

    @property
    def label(self) -> str:
        """The name of the model in the log."""

    @property
    def last_line(self) -> str:
        """The last line that the process wrote; empty if it wrote none."""

    @property
    def status(self) -> str:
        """How the process ended: the name of a signal, or "exit N"; "disconnected" if it runs."""

    @property
    def ended(self) -> bool:
        """Whether the process has ended, or has been told to."""

    @property
    def unreachable(self) -> bool:
        """Whether the host's machine is gone, so that nothing is known of the process."""

    async def died(self, within: float) -> bool:
        """Wait up to `within` seconds for the process to end; return whether it has."""

    def explain(self) -> str:
        """Return why the process ended, with its last lines of output."""

    def kill(self) -> None:
        """Kill the process and every process that the backend has started."""

    async def stop(self) -> None:
        """End the process. Raises nothing."""

    def log_last_output(self) -> None:
        """Write the last lines of output to the log."""


class OpenStream(Protocol):
    """Opens the Run stream without gRPC; see `puna.host.stream.connect`."""

    async def __call__(
        self,
        take: Callable[[bytes], None],
        gone: Callable[[], None],
        *,
        max_message_bytes: float,
        on_too_long: Callable[[int], None],
    ) -> Frames | None:
        """Return the stream; None if the host serves it over gRPC alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostResources:
    """The resources of its machine that a host takes, as far as they are known before the load. 0: none, or unknown."""

    memory_bytes: int = 0
    cpus: float = 0.0
    gpus: float = 0.0
    """GPUs that it uses on a machine that has some. Above 1 a whole number."""
    gpu_bytes: int = 0
    """Memory that it takes on GPUs. A launcher that knows the memory of a GPU asks for as many GPUs as have so much, in
    place of `gpus`. 0: `gpus` counts in any case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRequirements:
    """The host that a model needs."""

    backend: Plugin
    label: str
    """The name of the model in the log."""
    ready_seconds: float
    """How long the host may take from its start until it listens."""
    base: str = ""
    """The weights that it loads: a path. Hosts of one base are best on a machine that has the files. Empty: none."""
    resources: HostResources = HostResources()
    on_placed: Callable[[], None] = lambda: None
    """Called once the machine is chosen and the resources are taken there, before the host starts; perhaps more than
    once."""
    avoid: frozenset[str] = frozenset()
    """Addresses of nodes that have no room for the files. A launcher that does not choose the node takes no notice."""


OnTransfer: TypeAlias = Callable[[int, int], None]
"""Called with the bytes of a model's files that the host's machine has got or verified, and with their total."""


async def keep(spec: ModelSpec, on_transfer: OnTransfer) -> ModelSpec:  # noqa: ARG001 - see Endpoint.localize
    """Return a specification as it is, for a host that sees the files of this machine."""
    return spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A host that listens, and how to reach it."""

    host: RunningHost
    address: str
    """The target of a gRPC channel, such as "unix:/run/user/1000/puna-x/1"."""
    open_stream: OpenStream
    release: Callable[[], Awaitable[None]]
    """Ends the host. To be called once, after the channel is closed."""
    credentials: grpc.ChannelCredentials | None = None
    """The credentials of a gRPC channel; None: the socket protects itself."""
    options: tuple[tuple[str, str | int], ...] = ()
    """Options of a gRPC channel."""
    localize: Callable[[ModelSpec, OnTransfer], Awaitable[ModelSpec]] = keep
    """Brings the files of a model to the host's machine; returns a specification with its paths and its free memory.
    Raises LoadFailedError if that machine cannot have a file."""


class NodeState(Enum):
    """The connection between this core and a node, which runs hosts only while it is connected."""

    CONNECTED = "connected"
    """This core holds the node's lease."""
    CONNECTING = "connecting"
    DISCONNECTED = "disconnected"
    """This core does not hold the lease. The next load connects to the node again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """A machine other than this one that runs hosts."""

    address: str
    """Its address, such as "gpu1:11436"."""
    state: NodeState
    hosts: int
    """Number of hosts that it runs for this core."""
    free_bytes: int
    """Its free memory, as it told last; 0: unknown."""
    lease_expires_ns: int
    """When its lease ends unless it is renewed, in nanoseconds since 1970; 0: this core does not hold it."""
    error: str
    """Why this core does not hold the lease; empty if it does, or has not tried to take it."""
    losses: int
    """How often the node was lost."""


class Launcher(Protocol):
    """Starts hosts."""

    @property
    def machines(self) -> int:
        """Number of machines on which hosts may run, each with memory of its own."""

    async def start(self, requirements: HostRequirements) -> Endpoint:
        """Start a host and wait until it listens. Raises HostFailedError, or LoadFailedError if there is no place."""

    def nodes(self) -> Sequence[NodeStatus]:
        """Return the machines other than this one on which hosts may run; none if there are no others."""

    def has_room(self, resources: HostResources) -> bool:
        """Return whether a further host has a place now, or could have none even if the others ended."""

    def free_bytes(self) -> int:
        """Return the bytes of memory that a further model can take; 0 if that is not known."""

    async def aclose(self) -> None:
        """End what the launcher itself has open. Hosts are released before."""
