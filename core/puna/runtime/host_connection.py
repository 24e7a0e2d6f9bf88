"""The connection of one model to its host, which may be the model's own or shared with others."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import grpc
import grpc.aio

from puna.backend.v1 import backend_pb2_grpc
from puna.errors import BackendFailedError
from puna.host.channel import OPTIONS
from puna.limits import LARGEST_INT32, Limits
from puna.runtime.host_rpc import error_of
from puna.runtime.launcher import Endpoint, HostRequirements, Launcher, RunningHost

EXIT_SECONDS: Final = 2.0
"""How long it may take until a process is seen to be dead after its socket closed."""


@dataclass(frozen=True, slots=True)
class HostConnection:
    """The process and the channel that serve one model."""

    endpoint: Endpoint
    channel: grpc.aio.Channel
    release: Callable[[], Awaitable[None]]
    """Ends what serves the model: the process, or the model within a shared one. To be called once."""
    model_id: str = ""
    """The model's id in a shared host; empty if the host is its own, or was until others joined it."""

    @property
    def process(self) -> RunningHost:
        """The process of the host."""
        return self.endpoint.host

    @property
    def shared(self) -> bool:
        """True if other models may have been loaded in the host before this one."""
        return bool(self.model_id)

    @property
    def stub(self) -> "backend_pb2_grpc.BackendServiceAsyncStub":
        """The host's service."""
        stub: backend_pb2_grpc.BackendServiceAsyncStub = backend_pb2_grpc.BackendServiceStub(self.channel)
        return stub


async def connected(launcher: Launcher, requirements: HostRequirements, limits: Limits) -> HostConnection:
    """Start a host, and connect to it. Raises what `Launcher.start` raises."""
    endpoint = await launcher.start(requirements)
    # Of two options with one name, gRPC uses the first.
    largest = ("grpc.max_receive_message_length", min(limits.max_host_message_bytes, LARGEST_INT32))
    options = (largest, *endpoint.options, *OPTIONS)
    if endpoint.credentials is None:
        channel = grpc.aio.insecure_channel(endpoint.address, options=options)
    else:
        channel = grpc.aio.secure_channel(endpoint.address, endpoint.credentials, options=options)

    async def release() -> None:
        # The host ends even if closing the channel fails or is cancelled.
        async with AsyncExitStack() as stack:
            stack.push_async_callback(endpoint.release)
            await channel.close()

    return HostConnection(endpoint, channel, release)


@asynccontextmanager
async def translating_errors(host: HostConnection) -> AsyncGenerator[None]:
    """Translate the errors of a call: BackendFailedError if the host is gone, otherwise what `error_of` returns."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE and await host.process.died(within=EXIT_SECONDS):
            raise BackendFailedError(f"the host has ended: {host.process.explain()}") from None
        raise error_of(error) from None
    except grpc.aio.UsageError:  # the channel was closed meanwhile
        raise BackendFailedError("the host is gone") from None
