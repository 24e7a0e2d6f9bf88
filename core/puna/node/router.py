"""The listener of a node: passes TLS connections of cores on to the sockets of the node and of its hosts.

`puna.runtime.tunnel` has the theory and the core's side. A connection is nothing to the node before its certificate is
checked, which OpenSSL does in the handshake.
"""

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from puna.runtime.tunnel import CHECK, LONGEST_LINE, NONE, OK, OPEN_SECONDS, Pipe

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS: Final = 5.0
"""How long a TLS handshake may take."""

Route = Callable[[str], Path | asyncio.BufferedProtocol | None]
"""Returns the Unix socket, or the protocol of this process, for a purpose; None if there is none."""


class _Incoming(asyncio.Protocol):
    """A connection of a core, until its first line is read and its socket is connected."""

    def __init__(self, route: Route, tasks: "set[asyncio.Task[None]]") -> None:
        self._route = route
        self._tasks = tasks
        self._line = bytearray()
        self._transport: asyncio.Transport | None = None
        self._outer: Pipe | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first line."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._timer = asyncio.get_running_loop().call_later(OPEN_SECONDS, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Read the first line, or pass data on."""
        if self._outer is not None:
            self._outer.data_received(data)
            return
        self._line += data
        if b"\n" not in self._line and len(self._line) <= LONGEST_LINE:
            return
        assert self._transport is not None
        if self._timer is not None:
            self._timer.cancel()
        # The core sends nothing more before it has the answer.
        self._transport.pause_reading()
        task = asyncio.get_running_loop().create_task(self._connect(self._line.decode(errors="replace").strip()))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass the loss on."""
        if self._timer is not None:
            self._timer.cancel()
        if self._outer is not None:
            self._outer.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass on that the connection cannot take more."""
        if self._outer is not None:
            self._outer.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that the connection can take more."""
        if self._outer is not None:
            self._outer.resume_writing()

    async def _connect(self, purpose: str) -> None:
        assert self._transport is not None
        path = None if purpose == CHECK else self._route(purpose)
        if isinstance(path, asyncio.BufferedProtocol):
            self._transport.write(OK)
            self._transport.set_protocol(path)
            path.connection_made(self._transport)
            if self._transport.is_closing():
                path.connection_lost(None)
            return
        inner = Pipe()
        try:
            if path is not None:
                await asyncio.get_running_loop().create_unix_connection(lambda: inner, str(path))
        except OSError:
            # A host may have no socket for its Run stream, or has ended.
            path = None
        if path is None:
            self._transport.write(OK if purpose == CHECK else NONE)
            self._transport.close()
            return
        self._transport.write(OK)
        outer = Pipe()
        outer.join(inner)
        outer.connection_made(self._transport)
        self._outer = outer
        if self._transport.is_closing():
            inner.close()
        inner.begin()
        outer.begin()


@asynccontextmanager
async def routing(host: str, port: int, context: ssl.SSLContext, route: Route) -> AsyncGenerator[str]:
    """Listen until the context ends; yield the address. Raises OSError if the address is not available."""
    tasks: set[asyncio.Task[None]] = set()
    server = await asyncio.get_running_loop().create_server(
        lambda: _Incoming(route, tasks), host, port, ssl=context, ssl_handshake_timeout=HANDSHAKE_SECONDS
    )
    try:
        bound = server.sockets[0].getsockname()
        yield f"[{bound[0]}]:{bound[1]}" if ":" in bound[0] else f"{bound[0]}:{bound[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 1)
