"""Requests to a registry: authorized when it asks, redirected without showing who asks, errors as Ollama's.

A registry is not trusted. Where it may send this server is decided in `reach`; what it says is bounded here.
"""

import asyncio
import contextlib
import logging
import platform
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator, Mapping
from typing import Final, TypeAlias

import aiohttp
from yarl import URL

from puna.go.json import quote
from puna.models.registry.authorization import Authorization
from puna.models.registry.failures import (
    MissingError,
    ReferralError,
    RegistryError,
    UnauthorizedError,
    connecting_text,
    one_line,
    shown_url,
    system_text,
)
from puna.models.registry.limits import Limits
from puna.models.registry.reach import Connections, ForbiddenAddressError, Reach, connections
from puna.models.registry.repository import Repository
from puna.settings import REST_VERSION

log = logging.getLogger(__name__)

Body: TypeAlias = Callable[[], bytes | AsyncIterable[bytes]]
"""Creates a request's body. It is called each time the request is sent."""

_MACHINE: Final = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
# Ollama's registry refuses clients whose version is too old for a model, so this one names the version it equals.
USER_AGENT: Final = f"ollama/{REST_VERSION} ({_MACHINE} {platform.system().lower()}) Go/go1.26"
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
_MOST_REDIRECTS: Final = 10
_LONGEST_ERROR: Final = 1 << 12
_LONGEST_TOKEN: Final = 1 << 16
_ERROR_SECONDS: Final = 10
_DIGITS: Final = 18
"""Digits of the largest number that is read from a header."""


class Client:
    """Sends requests to one repository."""

    def __init__(
        self,
        opened: Connections,
        reach: Reach,
        repository: Repository,
        authorization: Authorization,
        limits: Limits,
    ) -> None:
        self._connections = opened
        self._reach = reach
        self.repository = repository
        self._authorization = authorization
        self._limits = limits

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        seconds: float | None = None,
        redirects: Callable[[str, str], bool] = lambda _old, _new: True,
    ) -> aiohttp.ClientResponse:
        """Return an answer that is no error. The caller reads its body and closes it.

        `seconds` bounds the time until the headers arrive. `redirects` decides, by the old and the new address, whether
        a redirect is followed. A redirect that is not followed is returned as the answer. Raises RegistryError and
        its subclasses.
        """
        # Two attempts: the first may earn a challenge. A second 401 means that the credentials are wrong.
        for attempt in range(2):
            used = self._authorization.header
            response = await self._followed(method, url, headers or {}, body, seconds, redirects)
            # Only the registry itself may ask for credentials. A storage that answers 401 has an expired address.
            if response.status == 401 and self.repository.is_trusted(str(response.url)):
                asked = response.headers.getall("WWW-Authenticate", [])
                response.close()
                if attempt == 0:
                    await self._authorization.answer(asked, str(response.url), used, self._fetch)
                continue
            if response.status < 400:
                return response
            raise await _refusal(response)
        raise UnauthorizedError

    async def manifest(self, tag: str, headers: Mapping[str, str]) -> bytes:
        """Return a manifest. Raises RegistryError if it has more bytes than the limits allow."""
        url, limit = self.repository.manifest(tag), self._limits.manifest
        response = await self.request("GET", url, headers=headers, seconds=self._limits.answer)
        async with response:
            with _go_errors("GET", url):
                async with asyncio.timeout(self._limits.answer):
                    data = await _read(response, limit + 1)
        if len(data) > limit:
            raise RegistryError(f"it has more than {limit} bytes; PUNA_MAX_MANIFEST_BYTES changes the limit")
        return data

    def location(self, response: aiohttp.ClientResponse, location: str) -> str:
        """Return the address in a header of an answer. Raises ReferralError if the registry may not refer to it."""
        came_from = str(response.url)
        target = joined(came_from, location)
        self._reach.check(target, came_from)
        return target

    async def _followed(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body | None,
        seconds: float | None,
        redirects: Callable[[str, str], bool],
    ) -> aiohttp.ClientResponse:
        for _ in range(_MOST_REDIRECTS + 1):
            response = await self._sent(method, url, headers, body, seconds)
            location = response.headers.get("Location", "")
            if response.status not in _REDIRECTS or not location:
                return response
            try:
                target = self.location(response, location)
            except ReferralError:
                response.close()
                raise
            if not redirects(url, target):
                return response
            response.close()
            url = target
        raise RegistryError(f"maximum redirects exceeded ({_MOST_REDIRECTS}) for directURL")

    async def _sent(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None, seconds: float | None
    ) -> aiohttp.ClientResponse:
        # identity: a blob must arrive with the bytes that its digest covers, and a small compressed body could expand
        # without bound.
        sent = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers}
        # Asked anew for each address: a redirect must not carry the header to another host.
        if self._authorization.header and self.repository.is_trusted(url):
            sent["Authorization"] = self._authorization.header
        with _go_errors(method, url):
            async with asyncio.timeout(seconds):
                session, proxy = await self._connections.session(url)
                return await session.request(
                    method,
                    # Signed addresses must be sent as they are: quoting them anew breaks the signature.
                    URL(url, encoded=True),
                    headers=sent,
                    data=body() if body is not None else None,
                    allow_redirects=False,
                    proxy=proxy,
                )

    async def _fetch(
        self, method: str, url: str, headers: Mapping[str, str], form: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        # The realm of a token server is an address that the registry chose.
        self._reach.check(url, str(self.repository.origin))
        sent = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers}
        with _go_errors(method, url):
            async with asyncio.timeout(self._limits.answer):
                session, proxy = await self._connections.session(url)
                # A redirect would take the credentials to another server; real token servers answer without one.
                async with session.request(
                    method, URL(url, encoded=True), headers=sent, data=form, allow_redirects=False, proxy=proxy
                ) as response:
                    return response.status, await _read(response, _LONGEST_TOKEN)


@contextlib.asynccontextmanager
async def connected(
    repository: Repository, reach: Reach, authorization: Authorization, limits: Limits
) -> AsyncGenerator[Client]:
    """Open a client."""
    async with connections(reach, limits.connect) as opened:
        yield Client(opened, reach, repository, authorization, limits)


async def chunks(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes]:
    """Yield a body in chunks as they arrive. Raises RegistryError if it ends too early."""
    with _go_errors(response.method, str(response.url)):
        async for chunk in response.content.iter_any():
            yield chunk


def joined(url: str, location: str) -> str:
    """Return the absolute address of a Location header. Signed addresses stay as they are. Raises ReferralError."""
    try:
        target = URL(location, encoded=True)
        return str(target if target.absolute else URL(url, encoded=True).join(target))
    except ValueError:
        raise ReferralError(location, "is no address") from None


def number(text: str) -> int | None:
    """Return the number in a header; None if it is no number or has too many digits."""
    # isdigit alone accepts digits of other scripts, and an unbounded number takes quadratic time to convert.
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS else None


@contextlib.contextmanager
def _go_errors(method: str, url: str) -> Iterator[None]:
    """Turn an error of a connection into a RegistryError in Go's words: Get "http://…": EOF."""
    try:
        yield
    except aiohttp.ClientConnectorCertificateError as error:
        text = one_line(f"tls: failed to verify certificate: x509: {error.certificate_error}")
    except aiohttp.ClientConnectorError as error:
        if isinstance(error.os_error, ForbiddenAddressError):
            raise ReferralError(url, str(error.os_error)) from error
        text = connecting_text(error.os_error, error.host, error.port)
        if isinstance(error, aiohttp.ClientProxyConnectionError):
            text = f"proxyconnect tcp: {text}"
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError):
        text = "unexpected EOF"
    except TimeoutError:
        text = "net/http: timeout awaiting response headers"
    except aiohttp.InvalidURL as error:
        text = f"invalid URL: {error}"
    except (aiohttp.ClientError, ConnectionError) as error:
        text = system_text(error) if isinstance(error, OSError) else one_line(str(error))
    else:
        return
    raise RegistryError(f"{method.title()} {quote(shown_url(url))}: {text}")


async def _refusal(response: aiohttp.ClientResponse) -> RegistryError:
    async with response:
        if response.status == 404:
            return MissingError()
        try:
            async with asyncio.timeout(_ERROR_SECONDS):
                text = one_line((await _read(response, _LONGEST_ERROR)).decode(errors="replace"))
        except (aiohttp.ClientError, TimeoutError):
            text = ""
        # A date is legal there too and counts as no wish: the usual delays apply.
        wait = number(response.headers.get("Retry-After", "")) or 0
        return RegistryError(f"{response.status}: {text}", status=response.status, wait=float(wait))


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    out = bytearray()
    async for chunk in response.content.iter_any():
        out += chunk
        if len(out) > limit:
            break
    return bytes(out[:limit])
