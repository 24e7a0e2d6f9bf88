"""Caps and timeouts of the HTTP listener's connections.

A connection is in one of three states: it waits for a request, receives one, or is at work on one. The state at work
has no timeout, because a model may load for minutes and a stream may be slow. The other two have timeouts, and so has a
client that does not read its response. A timeout costs a request nothing: events note the time, and a sweep over all
connections compares the times every few seconds.

Beyond a cap, a new connection replaces one that is not at work: the connection of the same address that has waited
longest, or of the address with the most connections if the cap on all connections is reached. Idle connections and slow
requests therefore cannot lock other clients out. If all connections are at work, the new one is refused.
"""

import asyncio
import ipaddress
import logging
from collections import OrderedDict
from typing import Final

from aiohttp import StreamReader, web

from puna.limits import Limits
from puna.rate_limited_log import RateLimitedLogger
from puna_rest.errors import BusyError, RestError

log = logging.getLogger(__name__)

LONGEST_HEADER: Final = 1024 * 1024
"""Bytes of the request line and of each header."""
LONGEST_HEAD: Final = 2 * LONGEST_HEADER
"""Bytes of the request line and all headers together. Pipelined requests count too while they wait."""
LINGER: Final = 2.0
"""Seconds in which the rest of a refused body is read. A client sees the response only once its body is sent."""
LONGEST_REST: Final = 64 * LONGEST_HEADER
"""Bytes of a refused body that are read and dropped."""
FOREVER: Final = 1e9
"""Seconds of a timeout that is switched off."""
SMALL_BODY: Final = 64 * 1024
"""Bytes up to which a body does not count against the limit on all bodies together."""
LEAST_RATE: Final = 1024
"""Bytes per second that a body must reach on average once it has taken longer than the timeout for bodies."""
LOG_EVERY: Final = 60.0
"""Seconds between two log lines about the same problem."""
_HEAD_TOO_LONG: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)


class Connection(web.RequestHandler):
    """One connection. It notes when its current state began and tells the listener's Connections about each change."""

    def __init__(self, server: web.Server, connections: "Connections") -> None:
        """`connections` counts all connections of the listener."""
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=FOREVER,  # the sweep enforces the idle timeout
            auto_decompress=False,
            access_log=None,  # type: ignore[arg-type]
            max_line_size=LONGEST_HEADER,
            max_field_size=LONGEST_HEADER,
            lingering_time=LINGER,
        )
        self._connections = connections
        self.address = ""
        self.wire: asyncio.Transport | None = None
        """The transport. aiohttp drops its own reference before the transport is closed."""
        self.body: StreamReader | None = None
        """The body that the handler reads now."""
        self.waiting_since = 0.0
        self.head_since: float | None = None
        self.body_since = 0.0
        self.silent_since: float | None = None
        """When the handler began to wait for the next piece of the body; None while it has one to work on."""
        self.unread_since: float | None = None
        """When the send buffer filled up because the client does not read; None while it reads."""
        self.closing_since: float | None = None
        self.at_work = False
        self.ahead = 0
        """Bytes received of the head, or of pipelined requests."""
        self.body_bytes = 0
        self._unread: StreamReader | None = None
        """The body of an answered request that has not arrived in full."""
        self.held = 0
        """Bytes of the body that are counted in Connections.hold."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection."""
        assert isinstance(transport, asyncio.Transport)
        self.wire = transport
        peer = transport.get_extra_info("peername")
        self.address = client_of(peer[0]) if isinstance(peer, tuple) else ""
        self.waiting_since = self._connections.now()
        self._connections.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Unregister the connection."""
        self._connections.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count the bytes, apply the limits on head and rest, and pass the bytes to aiohttp's parser."""
        if data and self.body is not None:
            self.body_bytes += len(data)
            if self.silent_since is not None:
                self.silent_since = self._connections.now()
        elif data:
            self.ahead += len(data)
            # aiohttp reads the rest of a refused body so that the client sees the response; the rest must have an end.
            if self._draining():
                if self.ahead > LONGEST_REST:
                    self.force_close()
                    return
            elif self.ahead > LONGEST_HEAD:
                self._refuse_head()
                return
            elif self.head_since is None and not self.at_work:
                self.head_since = self._connections.now()
        super().data_received(data)

    def pause_writing(self) -> None:
        """Note that the client has stopped reading."""
        self.unread_since = self._connections.now()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Note that the client reads again."""
        self.unread_since = None
        super().resume_writing()

    def log_exception(self, *_args: object, **more: object) -> None:
        """Log a malformed request as one rate-limited line. aiohttp would log a traceback for each."""
        self._connections.unreadable.warn("a request could not be read: %s", type(more.get("exc_info")).__name__)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the response and return to the state of waiting."""
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            # Also after an error: a connection that stayed at work would be exempt from all timeouts.
            self._connections.wait(self)
            self._unread = None if request.content.is_eof() else request.content

    def begin(self, request: web.BaseRequest) -> None:
        """Note that a request's head is complete. A request with a body is not at work until `received`."""
        self.head_since = self._unread = None
        self.ahead = 0
        # A request is at work only once its body is complete, or a slow body would have no timeout.
        if request.body_exists:
            self._connections.wait(self)
        else:
            self._connections.work(self)

    def receive(self, body: StreamReader) -> None:
        """Note that the handler begins to read the body."""
        self.body, self.body_bytes, self.body_since = body, 0, self._connections.now()

    def want(self) -> None:
        """Note that the handler waits for the client. The time between two reads of the handler does not count."""
        self.silent_since = self._connections.now()

    def hold(self, size: int) -> None:
        """Count a body of `size` bytes so far. BusyError: all bodies together exceed their limit."""
        if size > SMALL_BODY:
            self._connections.hold(self, size)

    def received(self) -> None:
        """Note that the body is complete, and go to work."""
        self.body = self.silent_since = None
        self.ahead = 0
        self._connections.work(self)

    def _draining(self) -> bool:
        """Return whether incoming bytes belong to the body of a request that is already answered."""
        if self._unread is not None and self._unread.is_eof():
            self._unread = None
            self.ahead = 0
        return self._unread is not None

    def _refuse_head(self) -> None:
        if self.wire is not None:
            self.wire.write(_HEAD_TOO_LONG)
        self.force_close()


class Connections:
    """All connections of a listener. It applies the caps and, in `sweep`, the timeouts."""

    def __init__(self, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        """`limits` holds the caps and the timeouts."""
        self._limits = limits
        self.now = loop.time
        self._all: set[Connection] = set()
        self._counts: dict[str, int] = {}
        self._waiting: dict[str, OrderedDict[Connection, None]] = {}
        """By address, the connections that are not at work, in the order in which they began to wait."""
        self._held = 0
        self._full = RateLimitedLogger(log, LOG_EVERY)
        self.unreadable = RateLimitedLogger(log, LOG_EVERY)

    def add(self, connection: Connection) -> None:
        """Register a new connection."""
        self._all.add(connection)
        self._counts[connection.address] = self._counts.get(connection.address, 0) + 1
        self._waiting.setdefault(connection.address, OrderedDict())[connection] = None

    def remove(self, connection: Connection) -> None:
        """Unregister a connection; has no effect the second time."""
        if connection not in self._all:
            return
        # The handler of a lost connection may still run and release its body later; the second time counts nothing.
        self._all.remove(connection)
        self._held -= connection.held
        connection.held = 0
        if waiting := self._waiting.get(connection.address):
            waiting.pop(connection, None)
        self._counts[connection.address] -= 1
        if not self._counts[connection.address]:
            del self._counts[connection.address]
            self._waiting.pop(connection.address, None)

    def work(self, connection: Connection) -> None:
        """Move a connection to the state at work."""
        connection.at_work = True
        if waiting := self._waiting.get(connection.address):
            waiting.pop(connection, None)

    def wait(self, connection: Connection) -> None:
        """Move a connection to the state of waiting, and release the bytes of its body."""
        connection.at_work = False
        connection.body = connection.silent_since = connection.head_since = None
        connection.ahead = 0
        connection.waiting_since = self.now()
        self._held -= connection.held
        connection.held = 0
        if connection in self._all:
            waiting = self._waiting[connection.address]
            waiting.pop(connection, None)
            waiting[connection] = None

    def hold(self, connection: Connection, size: int) -> None:
        """Count a body of `size` bytes until its request is answered. BusyError: the limit on all bodies is reached."""
        more = size - connection.held
        if self._held + more > self._limits.max_bodies_bytes:
            raise BusyError("the server holds as many bytes of request bodies as it may, try again later")
        self._held += more
        connection.held = size

    def admit(self, address: str) -> bool:
        """Return whether a new connection from `address` is accepted. May close a waiting connection to make room."""
        client = client_of(address)
        if self._counts.get(client, 0) >= self._limits.max_connections_per_address:
            admitted = self._evict(client)
        elif len(self._all) >= self._limits.max_connections:
            admitted = self.evict()
        else:
            return True
        if not admitted:
            self._full.warn("too many connections, refusing those from %s", address)
        return admitted

    def evict(self) -> bool:
        """Close the longest-waiting connection of the busiest address. Return False if no connection waits."""
        # The address with the most connections pays, so that one client cannot push all others out.
        busiest = max((each for each, waiting in self._waiting.items() if waiting), key=self._count, default=None)
        return busiest is not None and self._evict(busiest)

    def _count(self, address: str) -> int:
        return self._counts.get(address, 0)

    def _evict(self, address: str) -> bool:
        waiting = self._waiting.get(address)
        if not waiting:
            return False
        connection = next(iter(waiting))
        _end(connection)
        self.remove(connection)
        return True

    def sweep(self) -> None:
        """Apply the timeouts to all connections."""
        now = self.now()
        for connection in list(self._all):
            self._judge(connection, now)

    def _judge(self, connection: Connection, now: float) -> None:
        limits, wire = self._limits, connection.wire
        if wire is None:
            return
        if wire.is_closing():
            connection.closing_since = connection.closing_since or now
        stuck = (connection.unread_since, connection.closing_since)
        if any(since is not None and now - since > limits.write_timeout for since in stuck):
            # abort, not close: closing would wait for the client to read what it has not read so far.
            wire.abort()
        elif connection.body is not None:
            # A client must not pause longer than the timeout. A body that takes longer than it must also keep a minimum
            # rate, which stops clients that send one byte now and then.
            taken = now - connection.body_since
            silent = connection.silent_since is not None and now - connection.silent_since > limits.body_timeout
            slow = taken > limits.body_timeout and connection.body_bytes < LEAST_RATE * taken
            if silent or slow:
                connection.body.set_exception(RestError(408, "the request's body did not arrive in time"))
        else:
            late = connection.head_since is not None and now - connection.head_since > limits.header_timeout
            idle = not connection.at_work and now - connection.waiting_since > limits.idle_timeout
            if late or idle:
                _end(connection)


def client_of(address: str) -> str:
    """Return the key of a client: its IPv4 address, or the network half of its IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 6:
        return str(parsed.ipv4_mapped or int(parsed) >> 64)
    return str(parsed)


def _end(connection: Connection) -> None:
    """Close a connection at once. Its client waits for no response."""
    if connection.wire is not None:
        connection.wire.abort()
