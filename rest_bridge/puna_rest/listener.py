"""The HTTP listener: accepts connections within the caps.

asyncio's server is not used, because it logs a traceback for each connection that it cannot accept for lack of a file
descriptor, a hundred at a time. This listener pauses instead and logs one line a minute.
"""

import asyncio
import errno
import logging
import socket
import ssl
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from puna.limits import Limits
from puna.rate_limited_log import RateLimitedLogger
from puna_rest.connections import LOG_EVERY, Connection, Connections

log = logging.getLogger(__name__)

BACKLOG: Final = 1024
AT_ONCE: Final = 64
"""Connections accepted in one iteration of the event loop, so that running requests get their turn."""
PAUSE: Final = 0.25
"""Seconds without accepting after file descriptors or memory ran out."""
SWEEP: Final = 5.0
"""Longest time in seconds between two sweeps over the connections."""
_LINGER: Final = 1.0
"""Seconds for which a refused connection stays open so that its client can read the 503."""
_LINGERING: Final = 64
"""Refused connections that stay open at once."""
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_NO_ROOM_BODY: Final = b'{"error":"the server has too many connections"}'
_NO_ROOM: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_NO_ROOM_BODY), _NO_ROOM_BODY)
)


@asynccontextmanager
async def listening(
    host: str,
    port: int,
    limits: Limits,
    make: Callable[[Connections], Connection],
    tls: Callable[[], ssl.SSLContext] | None = None,
) -> AsyncGenerator[int]:
    """Accept connections until the context ends; yield the bound port.

    `make` returns the protocol of a new connection, `tls` its TLS context. OSError: the address is not available.
    """
    loop = asyncio.get_running_loop()
    connections = Connections(limits, loop)
    sockets = await _bound(host, port)
    secured = _Tls(tls, limits.header_timeout) if tls else None
    listener = _Listener(sockets, connections, lambda: make(connections), secured)
    # A sweep comes often enough that a timeout is late by a quarter at most.
    timeouts = (limits.header_timeout, limits.idle_timeout, limits.body_timeout, limits.write_timeout)
    sweeping = asyncio.create_task(_sweep(connections, min(SWEEP, min(timeouts) / 4)))
    listener.start()
    try:
        yield int(sockets[0].getsockname()[1])
    finally:
        sweeping.cancel()
        listener.close()


async def _sweep(connections: Connections, interval: float) -> None:
    while True:
        await asyncio.sleep(interval)
        connections.sweep()


async def _bound(host: str, port: int) -> list[socket.socket]:
    """Bind all addresses of a host name to one port."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    for family, kind, protocol, _, address in dict.fromkeys(found):
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:  # the machine lacks this address family
            failure = failure or error
            continue
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Linux would otherwise serve IPv4 through the IPv6 socket too, and refuse a second socket for IPv4.
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # With port 0 the first socket gets a free port, and the others must take the same one.
            chosen = sockets[0].getsockname()[1] if sockets else port
            sock.bind((address[0], chosen, *address[2:]))
            sock.listen(BACKLOG)
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            # A name may stand for addresses that this machine lacks, such as ::1 without IPv6.
            if error.errno == errno.EADDRNOTAVAIL:
                failure = failure or error
                continue
            for each in sockets:
                each.close()
            raise
        sockets.append(sock)
    if not sockets:
        raise failure or OSError(errno.EADDRNOTAVAIL, f"cannot listen on {host}:{port}")
    return sockets


@dataclass(frozen=True, slots=True)
class _Tls:
    context: Callable[[], ssl.SSLContext]
    seconds: float
    """Longest handshake."""


class _Listener:
    def __init__(
        self,
        sockets: list[socket.socket],
        connections: Connections,
        factory: Callable[[], Connection],
        tls: _Tls | None,
    ) -> None:
        self._sockets = sockets
        self._connections = connections
        self._factory = factory
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[None]] = set()
        self._lingering: deque[socket.socket] = deque()
        self._trouble = RateLimitedLogger(log, LOG_EVERY)
        self._closed = False

    def start(self) -> None:
        for sock in self._sockets:
            self._loop.add_reader(sock, self._accept, sock)

    def close(self) -> None:
        self._closed = True
        for task in self._opening:
            task.cancel()
        for sock in self._sockets:
            self._loop.remove_reader(sock)
            sock.close()
        while self._lingering:
            self._lingering.popleft().close()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(AT_ONCE):
            try:
                sock, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._trouble.warn("connections cannot be accepted: %s", error.strerror)
                # The pending connection stays in the kernel's queue, so the socket is readable at once again: without a
                # pause the loop would spin. Closing idle connections frees descriptors for it.
                freed = error.errno in _EXHAUSTED and sum(self._connections.evict() for _ in range(AT_ONCE)) > 0
                self._loop.remove_reader(listening)
                self._loop.call_later(PAUSE / AT_ONCE if freed else PAUSE, self._resume, listening)
                return
            sock.setblocking(False)
            if self._connections.admit(str(address[0])):
                self._open(sock)
            else:
                self._refuse(sock)

    def _resume(self, listening: socket.socket) -> None:
        if not self._closed:
            self._loop.add_reader(listening, self._accept, listening)

    def _open(self, sock: socket.socket) -> None:
        task = self._loop.create_task(self._connect(sock))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connect(self, sock: socket.socket) -> None:
        try:
            if self._tls is None:
                await self._loop.connect_accepted_socket(self._factory, sock)
            else:
                context, seconds = self._tls.context(), self._tls.seconds
                await self._loop.connect_accepted_socket(
                    self._factory, sock, ssl=context, ssl_handshake_timeout=seconds
                )
        except OSError as error:
            sock.close()
            # A client that speaks plain HTTP, or lacks a certificate, is no trouble of the server.
            if not isinstance(error, ssl.SSLError | ConnectionError):
                self._trouble.warn("a connection could not be opened: %s", error.strerror)

    def _refuse(self, sock: socket.socket) -> None:
        # The response fits into an empty send buffer, so this cannot block. Closing at once would reset the connection
        # if the client has sent anything, and the client would lose the response.
        with suppress(OSError):
            sock.send(_NO_ROOM)
            sock.shutdown(socket.SHUT_WR)
        if len(self._lingering) >= _LINGERING:
            self._lingering.popleft().close()
        self._lingering.append(sock)
        self._loop.call_later(_LINGER, self._let_go, sock)

    def _let_go(self, sock: socket.socket) -> None:
        if sock in self._lingering:
            self._lingering.remove(sock)
            sock.close()
