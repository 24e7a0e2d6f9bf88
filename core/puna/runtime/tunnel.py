"""Tunnels between Unix sockets of two machines, through TLS connections.

Theory. Hosts and cores speak over Unix sockets. A node passes each TLS connection on to the Unix socket of a host, and
the core has a Unix socket for each host of a node, so that neither side speaks differently to a host that is far away.
The first line of a connection names what it is for, and the answer is one line too: "ok", "none" if there is no such
socket, or an error. Everything after these lines is passed on as it is.

A host on this machine that dies closes its sockets at once. A machine that is gone closes nothing, so the core aborts
the connections of a node that does not answer (`Tunnels.abort`), and everything that waits for its hosts fails as it
does when a process dies.
"""

import asyncio
import os
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from puna.host.stream import Frames
from puna.process.cluster_tls import NODE_NAME
from puna.runtime.errors import NodeError

LONGEST_LINE: Final = 400
"""Bytes of the first line in each direction."""
OPEN_SECONDS: Final = 2.0
"""How long it may take to connect and to exchange the first lines."""
OK: Final = b"ok\n"
NONE: Final = b"none\n"
CHECK: Final = "check"
"""The purpose of a connection that only shows whether the node is there."""
CONTROL: Final = "node"
"""The purpose of connections to NodeService."""
FILE: Final = "file"
"""The first word of the purpose of a connection that brings a file; the second is the transfer's id."""


def grpc_of(host_id: str) -> str:
    """Return the purpose of connections to a host's gRPC socket."""
    return f"grpc {host_id}"


def run_of(host_id: str) -> str:
    """Return the purpose of a connection to the socket of a host's Run stream."""
    return f"run {host_id}"


class Pipe(asyncio.Protocol):
    """One end of a pair of connections: passes what it reads to the other end."""

    def __init__(self) -> None:
        self.peer: Pipe | None = None
        """The other end; None until `join`."""
        self.transport: asyncio.Transport | None = None
        self.lost = False
        """Whether the connection has ended."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport. The first end of a pair reads nothing before `begin`."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self.peer is None:
            transport.pause_reading()
        elif self.peer.lost:
            self.close()

    def join(self, peer: "Pipe") -> None:
        """Make a pair of this end and another one."""
        self.peer, peer.peer = peer, self

    def begin(self) -> None:
        """Begin to read, or go on."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Pass data on. It is dropped if the other end is closing."""
        if (peer := self.peer) is not None and peer.transport is not None and not peer.transport.is_closing():
            peer.transport.write(data)

    def pause_writing(self) -> None:
        """Read no more from the other end while this one cannot write."""
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read from the other end again."""
        if self.peer is not None:
            self.peer.begin()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (as asyncio calls it)
        """Close the other end."""
        self.lost = True
        if self.peer is not None:
            self.peer.close()

    def close(self) -> None:
        """Close the connection after everything that was written."""
        if self.transport is not None:
            self.transport.close()


class Tunnels:
    """The connections of a core to one node."""

    def __init__(self, address: str, context: ssl.SSLContext) -> None:
        """`address` is "host:port"."""
        self.address = address
        host, _, port = address.rpartition(":")
        self._place = (host.removeprefix("[").removesuffix("]"), int(port))
        self._context = context
        self._connections: set[_Connection] = set()
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._aborted = False

    async def listen(self, socket: Path, purpose: str) -> Callable[[], None]:
        """Listen on a Unix socket, and pass each connection on to the node for a purpose. Return what ends that."""

        def accept() -> Pipe:
            inner = Pipe()
            task = loop.create_task(self._pass_on(inner, purpose))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return inner

        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(accept, socket)
        self._servers.append(server)

        def close() -> None:
            server.close()
            socket.unlink(missing_ok=True)

        return close

    async def open_frames(self, purpose: str, frames: Callable[[], Frames]) -> Frames | None:
        """Open the Run stream of a host; return None if the host has none. Raises NodeError."""
        connection = await self._open(purpose)
        if connection is None:
            return None
        made = frames()
        connection.hand_over(made)
        return made

    async def check(self) -> None:
        """Connect to the node and close the connection. Raises NodeError with the reason if that is not possible."""
        if (connection := await self._open(CHECK)) is not None:
            connection.abort()

    def abort(self) -> None:
        """Close every connection at once, and open no other."""
        self._aborted = True
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        for connection in list(self._connections):
            connection.abort()

    async def _pass_on(self, inner: Pipe, purpose: str) -> None:
        """Connect to the node for a connection to the Unix socket. Without an answer the latter is closed."""
        connection = None
        try:
            with suppress(NodeError):
                connection = await self._open(purpose)
        finally:
            if connection is None:
                inner.close()
        if connection is not None:
            outer = Pipe()
            outer.join(inner)
            connection.hand_over(outer)
            inner.begin()

    async def _open(self, purpose: str) -> "_Connection | None":
        """Open a connection; return None if the node has no socket for its purpose. Raises NodeError."""
        if self._aborted:
            raise NodeError(f"{self.address} is not connected")
        connection = _Connection(self._connections)
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                await asyncio.get_running_loop().create_connection(
                    lambda: connection, *self._place, ssl=self._context, server_hostname=NODE_NAME
                )
                connection.write(f"{purpose}\n".encode())
                answer = await connection.line
            if answer not in (OK, NONE):
                text = answer.decode(errors="replace").strip()[:LONGEST_LINE]
                raise NodeError(f"{self.address} refuses the connection: {text}")
        except BaseException as error:
            connection.abort()
            if isinstance(error, OSError):
                raise NodeError(f"{self.address} {_reason(error, connected=connection.connected)}") from None
            raise
        if answer == NONE:
            connection.abort()
            return None
        return connection


class _Connection(asyncio.Protocol):
    """A TLS connection to a node, which another protocol takes over after the first line."""

    def __init__(self, connections: "set[_Connection]") -> None:
        """`connections` has the connection while it is open."""
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._read = bytearray()
        self._taker: asyncio.Protocol | None = None
        self._lost = False
        self.line: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        """The first line that the node sends."""

    @property
    def connected(self) -> bool:
        """Whether the TLS handshake has succeeded on this side."""
        return self._transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Pass data on, or keep it until there is a protocol that takes it."""
        if self._taker is not None:
            self._taker.data_received(data)
            return
        self._read += data
        line, end, rest = self._read.partition(b"\n")
        if not self.line.done() and (end or len(line) > LONGEST_LINE):
            self.line.set_result(bytes(line + end))
            self._read = rest

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass the loss on."""
        self._lost = True
        self._connections.discard(self)
        if not self.line.done():
            self.line.set_exception(exc or ConnectionResetError())
            self.line.exception()  # it counts as retrieved
        if self._taker is not None:
            self._taker.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass on that the connection cannot take more."""
        if self._taker is not None:
            self._taker.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that the connection can take more."""
        if self._taker is not None:
            self._taker.resume_writing()

    def hand_over(self, taker: asyncio.Protocol) -> None:
        """Let another protocol have the connection, with what was read after the first line."""
        assert self._transport is not None
        self._taker = taker
        taker.connection_made(self._transport)
        if self._read:
            taker.data_received(bytes(self._read))
            self._read.clear()
        if self._lost:
            taker.connection_lost(None)

    def write(self, data: bytes) -> None:
        """Send data."""
        assert self._transport is not None
        self._transport.write(data)

    def abort(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()


def _reason(error: OSError, *, connected: bool) -> str:
    """Return in words why there is no connection to a node. `connected`: whether the handshake succeeded here."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"has no certificate of this cluster: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return f"does not answer within {OPEN_SECONDS:g} s"
    # In TLS 1.3 a client learns only after its own handshake that the server refuses it, often by a closed connection.
    if connected or isinstance(error, ssl.SSLError):
        return "refuses this core's certificate, or is ending"
    return f"cannot be reached: {os.strerror(error.errno) if error.errno else error}"
