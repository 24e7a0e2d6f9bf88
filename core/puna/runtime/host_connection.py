"""The connection of one model to its host, which may be the model's own or shared with others."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import grpc
import grpc.aio

from puna.backend.v1 import backend_pb2 as wire
from puna.backend.v1 import backend_pb2_grpc
from puna.errors import BackendFailedError
from puna.host.channel import OPTIONS
from puna.limits import LARGEST_INT32, Limits
from puna.plugins import Plugin
from puna.runtime.host_rpc import error_of
from puna.runtime.launcher import Endpoint, HostRequirements, Launcher, RunningHost

log = logging.getLogger(__name__)

EXIT_SECONDS: Final = 2.0
"""How long it may take until a process is seen to be dead after its socket closed."""
UNLOAD_SECONDS: Final = 5.0
"""How long a shared host may take to free a model before the model is left behind in it."""


@dataclass(frozen=True, slots=True)
class HostConnection:
    """The process and the channel that serve one model."""

    endpoint: Endpoint
    channel: grpc.aio.Channel
    release: Callable[[], Awaitable[None]]
    """Ends what serves the model: the process, or the model within a shared one. To be called once."""
    model_id: str = ""
    """The model's id in a shared host; empty if the host is its own."""

    @property
    def process(self) -> RunningHost:
        """The process of the host."""
        return self.endpoint.host

    @property
    def shared(self) -> bool:
        """Whether other models may run in the host."""
        return bool(self.model_id)

    @property
    def stub(self) -> "backend_pb2_grpc.BackendServiceAsyncStub":
        """The host's service."""
        stub: backend_pb2_grpc.BackendServiceAsyncStub = backend_pb2_grpc.BackendServiceStub(self.channel)
        return stub


class SharedHost:
    """A host that serves all models of a backend. It ends when the last of its models is released."""

    def __init__(self, backend: Plugin, host: HostConnection) -> None:
        self.backend = backend
        """The backend as it was when the host started."""
        self._host = host
        self._models = 0
        self._ended = False

    @property
    def usable(self) -> bool:
        """Whether another model can be loaded in it."""
        return not self._ended and not self._host.process.ended

    def join(self, model_id: str) -> HostConnection:
        """Return the connection of one more model."""
        self._models += 1
        host = self._host
        return HostConnection(host.endpoint, host.channel, lambda: self._leave(model_id), model_id)

    async def _leave(self, model_id: str) -> None:
        """Free a model, and end the host after the last one."""
        self._models -= 1
        if not self._models:
            # Ending the host frees the model too. Set before the `await`, so that no other model joins meanwhile.
            self._ended = True
            await self._host.release()
        elif not self._host.process.ended:
            await self._unload(model_id)

    async def _unload(self, model_id: str) -> None:
        try:
            await self._host.stub.Unload(wire.UnloadRequest(model_id=model_id), timeout=UNLOAD_SECONDS)
        except grpc.aio.AioRpcError as error:
            if not self._host.process.ended:
                log.error(
                    "%s: %s has not freed one: %s",
                    self._host.process.label,
                    self._host.process.title,
                    error.details(),
                )
        # The channel was closed, since the last of the other models has been released meanwhile.
        except (grpc.aio.UsageError, asyncio.CancelledError):
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise


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
