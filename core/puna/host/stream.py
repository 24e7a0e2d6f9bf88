"""The Run stream without gRPC: its messages over a Unix socket of their own, each preceded by its length.

Every delta of every answer passes here. gRPC wakes two threads at each end for each message, and on a small machine
these compete with the threads that decode. The messages are those of `BackendService.Run`, which serves hosts without
such a socket.
"""

import asyncio
import math
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Protocol

from puna.backend.v1 import backend_pb2 as wire
from puna.host.models import Models
from puna.host.plugin_call import Work
from puna.host.sequences import Sequences

LENGTH_BYTES = 4
"""Size of the length before each message, little-endian."""


CLOSING_SECONDS = 3.0
"""How long the generators of a host that ends may take to close, and the model to be freed."""


def address(socket: str | os.PathLike[str]) -> str:
    """Return the path of the stream's socket, given that of the gRPC socket."""
    return f"{os.fspath(socket)}.r"


class Frames(asyncio.Protocol):
    """One end of the stream."""

    def __init__(
        self,
        take: Callable[[bytes], None],
        gone: Callable[[], None],
        max_message_bytes: float = math.inf,
        on_too_long: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`take` is called with each message, `gone` once when the connection is lost.

        A longer message than `max_message_bytes` ends the connection after `on_too_long` is called with its length.
        """
        self._take, self._gone = take, gone
        self._max_message_bytes, self._on_too_long = max_message_bytes, on_too_long
        self._rest = bytearray()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport for sending."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Pass on the complete messages and keep the rest."""
        # Almost always the data is one whole message, which is copied once.
        size = len(data) - LENGTH_BYTES
        if not self._rest and size == int.from_bytes(data[:LENGTH_BYTES], "little") and size <= self._max_message_bytes:
            self._take(data[LENGTH_BYTES:])
            return
        self._rest += data
        start = 0
        while len(self._rest) >= (begin := start + LENGTH_BYTES):
            length = int.from_bytes(self._rest[start:begin], "little")
            if length > self._max_message_bytes:
                self._on_too_long(length)
                self._rest.clear()
                self.close()
                return
            end = begin + length
            if len(self._rest) < end:
                break
            self._take(bytes(self._rest[begin:end]))
            start = end
        # Once per call and not per message: each deletion moves the rest of the buffer.
        del self._rest[:start]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (as asyncio calls it)
        """Report the loss of the connection."""
        self._gone()

    def send(self, message: bytes) -> None:
        """Send a message. It is dropped if the connection is lost."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(len(message).to_bytes(LENGTH_BYTES, "little") + message)

    def close(self) -> None:
        """Close the connection after everything that was sent."""
        if self._transport is not None:
            self._transport.close()


class Host(Protocol):
    """The members of the servicer that the stream uses."""

    @property
    def models(self) -> Models:
        """The loaded models."""

    @property
    def work(self) -> Work:
        """The work of the host."""


@asynccontextmanager
async def streaming(path: str, host: Host) -> AsyncGenerator[None]:
    """Run sequences for each connection to the socket at `path`. Leaving cancels them and waits for
    their end, but no longer than CLOSING_SECONDS."""
    loop = asyncio.get_running_loop()
    connections: set[asyncio.Task[None]] = set()

    def accept() -> Frames:
        # Without bound, since the core starts no more sequences than the model has slots.
        requests = asyncio.Queue[wire.RunRequest]()

        def take(message: bytes) -> None:
            requests.put_nowait(wire.RunRequest.FromString(message))

        def gone() -> None:
            # The core is gone or has closed the stream, so nothing reads the events.
            task.cancel()

        frames = Frames(take, gone)
        task = loop.create_task(_run(host, requests, frames))
        connections.add(task)
        task.add_done_callback(connections.discard)
        return frames

    server = await loop.create_unix_server(accept, path)
    try:
        yield
    finally:
        server.close()
        for task in connections:
            task.cancel()
        if connections:
            await asyncio.wait(connections, timeout=CLOSING_SECONDS)


async def _run(host: Host, requests: asyncio.Queue[wire.RunRequest], frames: Frames) -> None:
    async def each() -> AsyncIterator[wire.RunRequest]:
        while True:
            yield await requests.get()

    try:
        # The core connects after the load. An earlier connection is closed at once.
        if host.models:
            await Sequences(host.models, host.work).run(
                each(), lambda response: frames.send(response.SerializeToString())
            )
    finally:
        frames.close()


async def connect(
    path: str,
    take: Callable[[bytes], None],
    gone: Callable[[], None],
    *,
    max_message_bytes: float,
    on_too_long: Callable[[int], None],
) -> Frames | None:
    """Connect to a host's stream; return None if the host has none. The arguments are those of Frames."""

    def frames() -> Frames:
        return Frames(take, gone, max_message_bytes, on_too_long)

    with suppress(FileNotFoundError, ConnectionRefusedError):
        _, connected = await asyncio.get_running_loop().create_unix_connection(frames, path)
        return connected
    return None
