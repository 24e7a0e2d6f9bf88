"""The core's end of RPCs to a host: the version handshake, the Run stream, cancelling a call, and errors of calls."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from puna.backend import CONTRACT_VERSION, BackendError, InvalidRequestError, UnsupportedError
from puna.backend.v1 import backend_pb2 as wire
from puna.backend.v1 import backend_pb2_grpc
from puna.errors import BackendFailedError, PunaError
from puna.host import convert
from puna.host.channel import LONGEST_ERROR
from puna.runtime.errors import ContractVersionError

LONGEST_REASON: Final = 200
"""Characters of a host's own words about the end of its stream."""
OLDEST_CONTRACT_VERSION: Final = 1
"""The oldest version of the contract that this server speaks; the newest is CONTRACT_VERSION."""


async def described(stub: "backend_pb2_grpc.BackendServiceAsyncStub", backend: str) -> wire.DescribeResponse:
    """Ask the host to describe itself. Raises ContractVersionError if this server does not speak its version."""
    request = wire.DescribeRequest(min_contract_version=OLDEST_CONTRACT_VERSION, max_contract_version=CONTRACT_VERSION)
    try:
        found = await stub.Describe(request)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
            raise
        # A host of version 1 need not have the method.
        found = wire.DescribeResponse(contract_version=1)
    version = found.contract_version
    if not OLDEST_CONTRACT_VERSION <= version <= CONTRACT_VERSION:
        spoken = " to ".join(map(str, sorted({OLDEST_CONTRACT_VERSION, CONTRACT_VERSION})))
        raise ContractVersionError(backend, version, f"version {spoken}")
    return found


class GrpcRunStream:
    """The Run stream over gRPC, for a host without a stream socket; it has the same methods as Frames."""

    def __init__(
        self,
        stub: "backend_pb2_grpc.BackendServiceAsyncStub",
        take: Callable[[bytes], None],
        gone: Callable[[], None],
        broken: Callable[[str], None],
    ) -> None:
        """Start the call. `take` is called with each message, `gone` once when the stream ends.

        `broken` is called before with a reason, as a clause, if the host or gRPC ends the stream with an error.
        """
        self._requests: asyncio.Queue[wire.RunRequest | None] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read(stub, take, broken))
        self._reading.add_done_callback(lambda _: gone())

    def send(self, message: bytes) -> None:
        """Queue a serialized RunRequest."""
        self._requests.put_nowait(wire.RunRequest.FromString(message))

    def close(self) -> None:
        """End the stream after the requests that are queued."""
        self._requests.put_nowait(None)

    async def _read(
        self,
        stub: "backend_pb2_grpc.BackendServiceAsyncStub",
        take: Callable[[bytes], None],
        broken: Callable[[str], None],
    ) -> None:
        try:
            async for response in stub.Run(self._outgoing()):
                take(response.SerializeToString())
        except grpc.aio.AioRpcError as error:
            # The host is gone, and the cause of its death says more.
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                broken(
                    f"its stream of events ended with {error.code().name}: {(error.details() or '')[:LONGEST_REASON]}"
                )

    async def _outgoing(self) -> AsyncIterator[wire.RunRequest]:
        while (request := await self._requests.get()) is not None:
            yield request


def cancel_call(call: "grpc.aio.UnaryUnaryCall[Any, Any]") -> None:
    """Cancel an RPC without cancelling grpc.aio's task that waits for its end, which `call.cancel()` would do.

    grpc.aio leaks about a kilobyte for each operation whose task is cancelled (grpc/grpc#43360). `Call.cancel`, of the
    base class, cancels the RPC alone. In a version of grpc without that class the leak is accepted.
    """
    plain = getattr(sys.modules[type(call).__module__], "Call", type(call))
    plain.cancel(call)


def error_of(error: grpc.aio.AioRpcError) -> BackendError | PunaError:
    """Return the exception for a failed RPC: from the Failure in its trailing metadata, else from its status code."""
    for key, value in error.trailing_metadata() or ():
        if key == convert.FAILURE_KEY and isinstance(value, bytes):
            with suppress(DecodeError):
                return convert.error_from_wire(convert.Failure.FromString(value))
    text = (error.details() or error.code().name)[:LONGEST_ERROR]
    if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidRequestError(text)
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return UnsupportedError(text)
    return BackendFailedError(text)
