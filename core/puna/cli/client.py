"""The gRPC channel of commands, and their error messages."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from puna.cli.errors import CommandError
from puna.process import core_socket
from puna.settings import Settings

_DETAILS = "grpc-status-details-bin"
"""The metadata in which errors of a server have their reason."""

OPTIONS = (
    # A model's description may hold a whole vocabulary, and the server of the user's own choice is trusted.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 4 << 20),
    ("grpc.absolute_max_metadata_size", 8 << 20),  # an error may quote its input
)
_TLS = "https://"


class WithMetadata(
    grpc.aio.UnaryUnaryClientInterceptor,
    grpc.aio.UnaryStreamClientInterceptor,
    grpc.aio.StreamUnaryClientInterceptor,
    grpc.aio.StreamStreamClientInterceptor,
):
    """Sends further metadata with every call, such as an API key."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._pairs = tuple(pairs)

    async def intercept_unary_unary(self, go_on: Callable[..., Any], details: Any, request: object) -> Any:  # noqa: ANN401
        """Add the metadata to a unary call."""
        return await go_on(self._with(details), request)

    async def intercept_unary_stream(self, go_on: Callable[..., Any], details: Any, request: object) -> Any:  # noqa: ANN401
        """Add the metadata to a server streaming call."""
        return await go_on(self._with(details), request)

    async def intercept_stream_unary(self, go_on: Callable[..., Any], details: Any, requests: object) -> Any:  # noqa: ANN401
        """Add the metadata to a client streaming call."""
        return await go_on(self._with(details), requests)

    async def intercept_stream_stream(self, go_on: Callable[..., Any], details: Any, requests: object) -> Any:  # noqa: ANN401
        """Add the metadata to a call that streams both ways."""
        return await go_on(self._with(details), requests)

    def _with(self, details: Any) -> Any:  # noqa: ANN401 - ClientCallDetails of grpc.aio
        return details._replace(metadata=grpc.aio.Metadata(*(details.metadata or ()), *self._pairs))


@asynccontextmanager
async def open_channel(
    settings: Settings,
    target: str,
    *,
    with_key: bool = True,
    pairs: Sequence[tuple[str, str]] = (),
) -> AsyncGenerator[grpc.aio.Channel]:
    """Open a channel to `target`, "host:port" or "https://host:port", for the block.

    `with_key`: whether to send the key of the settings. `pairs` are sent as metadata of every call. OSError: the file
    of certificates cannot be read.
    """
    key = (("authorization", f"Bearer {settings.api_key}"),) if settings.api_key and with_key else ()
    interceptors = [WithMetadata((*key, *pairs))] if key or pairs else []
    if target.startswith(_TLS):
        roots = settings.tls_ca.read_bytes() if settings.tls_ca is not None else None
        pair: tuple[bytes | None, bytes | None] = (None, None)
        if settings.tls_certificate is not None and settings.tls_key is not None:
            pair = (settings.tls_key.read_bytes(), settings.tls_certificate.read_bytes())
        credentials = grpc.ssl_channel_credentials(roots, *pair)
        channel = grpc.aio.secure_channel(target.removeprefix(_TLS), credentials, OPTIONS, interceptors=interceptors)
    else:
        channel = grpc.aio.insecure_channel(target, OPTIONS, interceptors=interceptors)
    async with channel:
        yield channel


@asynccontextmanager
async def connected(settings: Settings) -> AsyncGenerator[grpc.aio.Channel]:
    """Open a channel to the core for the block. A failed call in the block becomes a CommandError.

    A core of the same account on this machine is called through its Unix socket, where no key is needed.
    """
    async with open_channel(settings, await asyncio.to_thread(_target, settings)) as channel:
        try:
            yield channel
        except grpc.aio.AioRpcError as error:
            raise CommandError(text_of(error, settings)) from error


def _target(settings: Settings) -> str:
    host, _, port = settings.grpc_host.rpartition(":")
    # A command with a key means to be the caller that the key stands for.
    if host in ("127.0.0.1", "localhost", "[::1]") and port.isdigit() and not settings.api_key:
        path = core_socket.found(int(port))
        if path is not None:
            return f"unix:{path}"
    return settings.grpc_host


def text_of(error: grpc.aio.AioRpcError, settings: Settings) -> str:
    """Return the message for a failed call."""
    if unreachable(error):
        return f"could not connect to the server at {settings.grpc_host}, run 'puna serve' to start it"
    if error.code() is grpc.StatusCode.UNAUTHENTICATED:
        return f"{error.details()}; PUNA_API_KEY sets the key that commands send"
    return error.details() or error.code().name


def unreachable(error: grpc.aio.AioRpcError) -> bool:
    """Return whether the server could not be reached."""
    # The status alone does not tell: a server that is ending, or a host that died, is UNAVAILABLE as well. Nor does the
    # text, since a server may fail to connect to something else; its own errors have details.
    answered = any(key == _DETAILS for key, _ in error.trailing_metadata() or ())
    failed = "failed to connect" in (error.details() or "").lower()
    return error.code() is grpc.StatusCode.UNAVAILABLE and failed and not answered


def not_found(error: grpc.aio.AioRpcError) -> bool:
    """Return whether the named object does not exist."""
    return error.code() is grpc.StatusCode.NOT_FOUND
