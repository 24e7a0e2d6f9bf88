"""Where a registry may send this server: the policy, and connections that enforce it.

A registry refers to other addresses by redirects, by Location headers and by the realm of a challenge. Each is a
request that this server makes for another party. The rules:

- An address is http or https, carries no user's name, and http never follows https.
- The registry itself may be anywhere: the user has named it. If that is http on port 80, https on 443 is it too.
- Elsewhere is reached by https and at public addresses only. Storages with signed addresses and token servers are so.
- The registry under another name is still the registry: addresses and ports of its own name are allowed.
- The operator may name further hosts (PUNA_REGISTRY_PEERS), which may be anywhere and may speak http.

A name can resolve to another address at each look-up, so a check before the connection proves nothing. Addresses are
checked where no look-up follows: the resolver drops those that are not allowed, and the factory of sockets makes no
socket for one. A registry's name that resolves differently later gains public addresses only.
"""

import contextlib
import ipaddress
import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp import AddrInfoType
from aiohttp.abc import AbstractResolver, ResolveResult

from puna.models.registry.addresses import address_of, is_public
from puna.models.registry.failures import ReferralError
from puna.models.registry.lookup import addresses
from puna.models.registry.origin import PORTS, Origin, Pattern

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_NOT_PUBLIC: Final = "has no public address, and PUNA_REGISTRY_PEERS does not name it"
_IN_CLEAR: Final = "is another host by http, and PUNA_REGISTRY_PEERS does not name it"
_MALFORMED: Final = "is not an address of http or https without a user's name"
_DOWNGRADE: Final = "is in clear, and what refers to it is encrypted"


class ForbiddenAddressError(OSError):
    """A connection would go to an address that the registry may not send this server to."""


class Reach:
    """The addresses that one operation with a registry may connect to."""

    def __init__(self, home: Origin, peers: Sequence[Pattern] = ()) -> None:
        """`home` is the registry that the user named, `peers` the further hosts that the operator allows."""
        self._peers = tuple(peers)
        # A registry that was named with http often redirects to https.
        self._homes = {home, Origin("https", home.host, 443)} if home.port == PORTS["http"] else {home}
        self._looked_up: set[Origin] = set()
        self._own: set[tuple[Address, int]] = set()
        """Addresses and ports of the registry and of peers."""
        for each in self._homes:
            self._add(each.host, each.port)
        for peer in peers:
            for port in (peer.port,) if peer.port else PORTS.values():
                self._add(peer.host, port)

    def _add(self, text: str, port: int) -> None:
        address = address_of(text)
        if address is not None:
            self._own.add((address, port))

    def check(self, url: str, came_from: str) -> None:
        """Raise ReferralError unless a request to `came_from` may be followed by one to `url`."""
        try:
            target = Origin.of(url)
        except ValueError:
            raise ReferralError(url, _MALFORMED) from None
        if address_of(target.host) is None and target.host.replace(".", "").isdigit():
            raise ReferralError(url, _MALFORMED)  # an address in a form that programs read differently
        if target.scheme == "http" and Origin.of(came_from).scheme == "https":
            raise ReferralError(url, _DOWNGRADE)
        if address_of(target.host) and not self.allows(target.host, target.port, secure=target.scheme == "https"):
            raise ReferralError(url, _why(secure=target.scheme == "https"))

    def allows(self, text: str, port: int, *, secure: bool) -> bool:
        """Return whether a connection may go to an IP address. `secure` says that it is for https."""
        address = address_of(text)
        return address is not None and ((address, port) in self._own or (secure and is_public(address)))

    def admitted(self, host: str, port: int, addresses: Sequence[str], *, secure: bool) -> list[str]:
        """Return those of a name's addresses that may be used, and learn where the registry and peers are.

        Raises ForbiddenAddressError when there is none.
        """
        target = Origin("https" if secure else "http", host.lower(), port)
        is_home, is_fresh = target in self._homes, target not in self._looked_up
        self._looked_up.add(target)
        for each in addresses:
            # Only the first look-up of the registry's name teaches private addresses. A later answer could rebind the
            # name to a machine behind this one.
            if (is_home and (is_fresh or _is_public_text(each))) or self._is_peer(target):
                self._add(each, port)
        found = [each for each in addresses if self.allows(each, port, secure=secure)]
        if not found:
            raise ForbiddenAddressError(f"{host} {_why(secure=secure)}")
        return found

    async def vet(self, url: str) -> None:
        """Check an address that a proxy is asked for. Raises ReferralError.

        The proxy resolves the name itself, so this is no proof. A name that only the proxy can resolve is left to it.
        """
        target = Origin.of(url)
        # The registry and its peers may be anywhere, so their addresses need no check.
        if target in self._homes or self._is_peer(target):
            return
        if target.scheme != "https":
            raise ReferralError(url, _IN_CLEAR)
        try:
            found = await addresses(target.host, target.port)
        except OSError:
            return
        if not all(_is_public_text(each) for _, each in found):
            raise ReferralError(url, _NOT_PUBLIC)

    def _is_peer(self, target: Origin) -> bool:
        return any(peer.covers(target) for peer in self._peers)


class _Resolver(AbstractResolver):
    """A resolver that returns only the addresses that may be connected to."""

    def __init__(self, reach: Reach, *, secure: bool) -> None:
        self._reach = reach
        self._secure = secure

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await addresses(host, port, family)
        kept = self._reach.admitted(host, port, [each for _, each in found], secure=self._secure)
        # Numeric flags keep aiohttp from looking the addresses up once more.
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(hostname=host, host=each, port=port, family=kind, proto=socket.IPPROTO_TCP, flags=flags)
            for kind, each in found
            if each in kept
        ]

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""


class Connections:
    """HTTP sessions that connect only to permitted addresses: one for each scheme, and one for proxies."""

    def __init__(self, reach: Reach, connect_seconds: float) -> None:
        self._reach = reach
        self._seconds = connect_seconds
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    async def session(self, url: str) -> tuple[aiohttp.ClientSession, str | None]:
        """Return the session for an address, and the proxy if there is one. Raises ReferralError."""
        proxy = proxy_for(url)
        if proxy is not None:
            await self._reach.vet(url)
        kind = Origin.of(url).scheme if proxy is None else "proxy"
        # Sessions differ by scheme because the resolver must know whether the connection will be encrypted.
        if kind not in self._sessions:
            self._sessions[kind] = self._opened(kind)
        return self._sessions[kind], proxy

    def _opened(self, kind: str) -> aiohttp.ClientSession:
        how: dict[str, Any] = {}
        if kind != "proxy":
            secure = kind == "https"
            how = {"resolver": _Resolver(self._reach, secure=secure), "socket_factory": self._factory(secure=secure)}
        return aiohttp.ClientSession(
            # The number of connections is bounded by the parts, not by the connector.
            connector=aiohttp.TCPConnector(limit=0, **how),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # a small body could expand without bound
        )

    def _factory(self, *, secure: bool) -> Callable[[AddrInfoType], socket.socket]:
        def make(info: AddrInfoType) -> socket.socket:
            family, kind, protocol, _, address = info
            # Literal addresses pass no resolver, so they are checked here.
            if not self._reach.allows(address[0], address[1], secure=secure):
                raise ForbiddenAddressError(f"{address[0]} {_why(secure=secure)}")
            return socket.socket(family, kind, protocol)

        return make

    async def close(self) -> None:
        """Close all sessions."""
        for session in self._sessions.values():
            await session.close()


@contextlib.asynccontextmanager
async def connections(reach: Reach, connect_seconds: float) -> AsyncGenerator[Connections]:
    """Open the sessions and close them at the end."""
    opened = Connections(reach, connect_seconds)
    try:
        yield opened
    finally:
        await opened.close()


def proxy_for(url: str) -> str | None:
    """Return the environment's proxy for an address. As in Go, loopback never goes through a proxy."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host == "localhost" or host.startswith("127.") or host == "::1" or proxy_bypass(host):
        return None
    return getproxies().get(parts.scheme)


def _why(*, secure: bool) -> str:
    return _NOT_PUBLIC if secure else _IN_CLEAR


def _is_public_text(text: str) -> bool:
    address = address_of(text)
    return address is not None and is_public(address)
