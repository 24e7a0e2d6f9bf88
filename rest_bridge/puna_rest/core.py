"""The gRPC stubs of the core, and the channel options they need."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, TypeVar

import grpc.aio
from aiohttp import web

from puna_client.v1 import (
    batch_pb2_grpc,
    chat_pb2_grpc,
    diagnostics_pb2_grpc,
    embed_pb2_grpc,
    files_pb2_grpc,
    generate_pb2_grpc,
    models_pb2_grpc,
    rank_pb2_grpc,
    server_pb2_grpc,
    tokenize_pb2_grpc,
)
from puna_rest.errors import LONG_ERRORS, RestError

Part = TypeVar("Part")
Answer = TypeVar("Answer")
REQUEST_ID: Final = "X-Request-Id"
"""HTTP header with an id that the client chooses. The answer repeats it."""
# The headers with an API key are OpenAI's, Anthropic's and Azure's. The core decides what a key allows.
_FORWARDED: Final = ("Authorization", "X-Api-Key", "Api-Key", REQUEST_ID, "Traceparent", "Tracestate", "X-Session-Id")
CHANNEL_OPTIONS: Final = (
    # Some messages exceed gRPC's default of 4 MiB: a model with all tensors, images, an error that quotes its input.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 4 * 1024 * 1024),
    ("grpc.absolute_max_metadata_size", 8 * 1024 * 1024),
)


@dataclass(frozen=True, slots=True)
class Core:
    """The core's services. The stubs' types exist for type checkers alone, hence the quotes."""

    generate: "generate_pb2_grpc.GenerateServiceAsyncStub"
    chat: "chat_pb2_grpc.ChatServiceAsyncStub"
    embed: "embed_pb2_grpc.EmbedServiceAsyncStub"
    models: "models_pb2_grpc.ModelsServiceAsyncStub"
    server: "server_pb2_grpc.ServerServiceAsyncStub"
    tokenize: "tokenize_pb2_grpc.TokenizeServiceAsyncStub"
    rank: "rank_pb2_grpc.RankServiceAsyncStub"
    batch: "batch_pb2_grpc.BatchServiceAsyncStub"
    files: "files_pb2_grpc.FilesServiceAsyncStub"
    diagnostics: "diagnostics_pb2_grpc.DiagnosticsServiceAsyncStub"


CORE: Final = web.AppKey("core", Core)
# The bridge takes error messages of any length.
_metadata: ContextVar[tuple[tuple[str, str], ...]] = ContextVar("metadata", default=(LONG_ERRORS,))


def metadata() -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call on behalf of the current HTTP request."""
    return _metadata.get()


def forward(headers: Mapping[str, str]) -> None:
    """Have the calls of the current HTTP request carry its key, its id and its trace."""
    found = ((name.lower(), value) for name in _FORWARDED if (value := headers.get(name)) and _is_printable(value))
    _metadata.set((LONG_ERRORS, *found))


def _is_printable(value: str) -> bool:
    # gRPC refuses metadata with other characters. No key or id has one, so the core need not see the value.
    return value.isascii() and value.isprintable()


def connect(channel: grpc.aio.Channel) -> Core:
    """Return stubs over an open channel. The caller keeps the channel and closes it."""
    return Core(
        generate_pb2_grpc.GenerateServiceStub(channel),
        chat_pb2_grpc.ChatServiceStub(channel),
        embed_pb2_grpc.EmbedServiceStub(channel),
        models_pb2_grpc.ModelsServiceStub(channel),
        server_pb2_grpc.ServerServiceStub(channel),
        tokenize_pb2_grpc.TokenizeServiceStub(channel),
        rank_pb2_grpc.RankServiceStub(channel),
        batch_pb2_grpc.BatchServiceStub(channel),
        files_pb2_grpc.FilesServiceStub(channel),
        diagnostics_pb2_grpc.DiagnosticsServiceStub(channel),
    )


async def upload(
    method: Callable[..., Awaitable[Answer]], parts: AsyncGenerator[Part], pairs: tuple[tuple[str, str], ...]
) -> Answer:
    """Call a client streaming method with metadata, and return its answer. Raises what `parts` raises.

    A channel with a socket cancels the call when the parts fail, and would tell no one why.
    """
    failures: list[RestError | grpc.aio.AioRpcError] = []

    async def watched() -> AsyncGenerator[Part]:
        async with aclosing(parts):
            try:
                async for part in parts:
                    yield part
            except (RestError, grpc.aio.AioRpcError) as error:
                failures.append(error)
                raise

    try:
        return await method(watched(), metadata=pairs)
    except (asyncio.CancelledError, grpc.aio.AioRpcError):
        if failures:
            raise failures[0] from None
        raise
