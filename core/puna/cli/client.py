"""The gRPC channel of commands, and their error messages."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import grpc.aio

from puna.cli.errors import CommandError
from puna.settings import Settings

OPTIONS = (
    # A model's description may hold a whole vocabulary, and the server of the user's own choice is trusted.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 4 << 20),
)


@asynccontextmanager
async def connected(settings: Settings) -> AsyncGenerator[grpc.aio.Channel]:
    """Open a channel to the core for the block. A failed call in the block becomes a CommandError."""
    async with grpc.aio.insecure_channel(settings.grpc_host, options=OPTIONS) as channel:
        try:
            yield channel
        except grpc.aio.AioRpcError as error:
            raise CommandError(text_of(error, settings)) from error


def text_of(error: grpc.aio.AioRpcError, settings: Settings) -> str:
    """Return the message for a failed call."""
    if unreachable(error):
        return f"could not connect to the server at {settings.grpc_host}, run 'puna serve' to start it"
    return error.details() or error.code().name


def unreachable(error: grpc.aio.AioRpcError) -> bool:
    """Return whether the server could not be reached."""
    # The status alone does not tell: a server that is ending, or a host that died, is UNAVAILABLE as well.
    return error.code() is grpc.StatusCode.UNAVAILABLE and "failed to connect" in (error.details() or "").lower()


def not_found(error: grpc.aio.AioRpcError) -> bool:
    """Return whether the named object does not exist."""
    return error.code() is grpc.StatusCode.NOT_FOUND
