"""The connections of the HTTP listener: how many there may be, and how long each may take.

A connection waits for a request, receives it, works on it, and waits again. Only work may last: a model may load for
minutes, and a stream may be slow. Everything before it has a timeout, and so has a client that does not read its
answer. Timeouts cost a request nothing: events note a time, and one sweep over all connections compares the times.

A new connection beyond the cap takes the place of the one that has waited or received for longest, first of the same
address, then of the address with the most connections. Idle connections and slow requests can therefore never lock
other clients out. The new connection is refused when all others are at work.
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
"""Bytes of the request line and all headers, and of requests that arrive while another one is worked on."""
LINGER: Final = 2.0
"""Seconds for which the rest of a body is read whose request is answered already, so that the client sees why."""
LONGEST_REST: Final = 64 * LONGEST_HEADER
"""Bytes of such a rest."""
FOREVER: Final = 1e9
"""Seconds of a timeout that never ends anything."""
SMALL_BODY: Final = 64 * 1024
"""Bytes up to which a body does not count against the bytes that all bodies may have together."""
LEAST_RATE: Final = 1024
"""Bytes a second that a body must have on average, once the timeout for bodies has passed."""
LOG_EVERY: Final = 60.0
"""Seconds between two lines in the log about the same trouble."""
_HEAD_TOO_LONG: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)


class Connection(web.RequestHandler):
    """A connection, which notes when it began what it is doing."""

    def __init__(self, server: web.Server, connections: "Connections") -> None:
        """`connections` are those of the listener."""
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=FOREVER,  # the sweep has a timeout of its own
            auto_decompress=False,
            access_log=None,  # type: ignore[arg-type]
            max_line_size=LONGEST_HEADER,
            max_field_size=LONGEST_HEADER,
            lingering_time=LINGER,
        )
        self._connections = connections
        self.address = ""
        self.wire: asyncio.Transport | None = None
        """The transport, which aiohttp forgets before it is closed."""
        self.body: StreamReader | None = None
        """The body that is being received."""
        self.waiting_since = 0.0
        self.head_since: float | None = None
        self.body_since = 0.0
        self.silent_since: float | None = None
        """When the handler began to wait for more of the body."""
        self.unread_since: float | None = None
        """When the client stopped reading what is sent to it."""
        self.closing_since: float | None = None
        self.at_work = False
        self.ahead = 0
        """Bytes of the head, or of requests that arrive while another one is worked on."""
        self.body_bytes = 0
        self._unread: StreamReader | None = None
        """The body of an answered request, until its end has come."""
        self.held = 0
        """Bytes of its body that count against the bytes of all bodies."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self.wire = transport
        peer = transport.get_extra_info("peername")
        self.address = client_of(peer[0]) if isinstance(peer, tuple) else ""
        self.waiting_since = self._connections.now()
        self._connections.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        self._connections.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes, and note how many there are."""
        if data and self.body is not None:
            self.body_bytes += len(data)
            if self.silent_since is not None:
                self.silent_since = self._connections.now()
        elif data:
            self.ahead += len(data)
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
        """Note that the client does not read."""
        self.unread_since = self._connections.now()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Note that it does."""
        self.unread_since = None
        super().resume_writing()

    def log_exception(self, *_args: object, **more: object) -> None:
        """Log what aiohttp cannot read, without a traceback for each."""
        self._connections.unreadable.warn("a request could not be read: %s", type(more.get("exc_info")).__name__)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer, then wait for the next request."""
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._connections.wait(self)
            self._unread = None if request.content.is_eof() else request.content

    def begin(self, request: web.BaseRequest) -> None:
        """Take a request whose head is complete."""
        self.head_since = self._unread = None
        self.ahead = 0
        if request.body_exists:
            self._connections.wait(self)
        else:
            self._connections.work(self)

    def receive(self, body: StreamReader) -> None:
        """Begin to read a body."""
        self.body, self.body_bytes, self.body_since = body, 0, self._connections.now()

    def want(self) -> None:
        """Begin to wait for more of the body. The time that the server takes for what it has is not the client's."""
        self.silent_since = self._connections.now()

    def hold(self, size: int) -> None:
        """Count a body that has this many bytes by now. BusyError: all bodies together have too many."""
        if size > SMALL_BODY:
            self._connections.hold(self, size)

    def received(self) -> None:
        """End the reading of a body."""
        self.body = self.silent_since = None
        self.ahead = 0
        self._connections.work(self)

    def _draining(self) -> bool:
        """Tell whether the rest of a body comes whose request is answered already. aiohttp reads it for a while."""
        if self._unread is not None and self._unread.is_eof():
            self._unread = None
            self.ahead = 0
        return self._unread is not None

    def _refuse_head(self) -> None:
        if self.wire is not None:
            self.wire.write(_HEAD_TOO_LONG)
        self.force_close()


class Connections:
    """All connections of a listener."""

    def __init__(self, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        """`limits` has the caps and the timeouts."""
        self._limits = limits
        self.now = loop.time
        self._all: set[Connection] = set()
        self._counts: dict[str, int] = {}
        self._waiting: dict[str, OrderedDict[Connection, None]] = {}
        """Connections that are not at work by address, the longest-waiting first."""
        self._held = 0
        self._full = RateLimitedLogger(log, LOG_EVERY)
        self.unreadable = RateLimitedLogger(log, LOG_EVERY)

    def add(self, connection: Connection) -> None:
        """Count a new connection."""
        self._all.add(connection)
        self._counts[connection.address] = self._counts.get(connection.address, 0) + 1
        self._waiting.setdefault(connection.address, OrderedDict())[connection] = None

    def remove(self, connection: Connection) -> None:
        """Forget a connection."""
        if connection not in self._all:
            return
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
        """Note that a request is complete."""
        connection.at_work = True
        if waiting := self._waiting.get(connection.address):
            waiting.pop(connection, None)

    def wait(self, connection: Connection) -> None:
        """Note that an answer is complete."""
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
        """Count the bytes of a body, which are held until its request is answered. BusyError: there are too many."""
        more = size - connection.held
        if self._held + more > self._limits.max_bodies_bytes:
            raise BusyError("the server holds as many bytes of request bodies as it may, try again later")
        self._held += more
        connection.held = size

    def admit(self, address: str) -> bool:
        """Tell whether one more connection may come, and close a waiting one if that makes room for it."""
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
        """Close the longest-waiting connection of the address with the most; tell whether there is one."""
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
        """End what takes too long."""
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
            wire.abort()
        elif connection.body is not None:
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
    """Return what counts as one client: an IPv4 address, or the 64 bits of an IPv6 address that name its network."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 6:
        return str(parsed.ipv4_mapped or int(parsed) >> 64)
    return str(parsed)


def _end(connection: Connection) -> None:
    """Close a connection that has no answer to wait for."""
    if connection.wire is not None:
        connection.wire.abort()
