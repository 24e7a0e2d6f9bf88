"""Reading a registry's challenge: the WWW-Authenticate header, and the address of the token server in it."""

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

_SCHEME: Final = re.compile(r"\s*(?P<scheme>[A-Za-z]+)(?:\s+|$)")
_PARAMETER: Final = re.compile(
    r'\s*,?\s*(?P<key>[A-Za-z_-]+)\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s,"]+))'
)
_NOTHING: Final = base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()


@dataclass(frozen=True, slots=True)
class Challenge:
    """One scheme of authentication that a registry accepts."""

    scheme: str
    """"bearer" or "basic", in lower case."""
    realm: str = ""
    service: str = ""
    scope: str = ""

    @property
    def scopes(self) -> tuple[str, ...]:
        """The operations that the token allows."""
        return tuple(self.scope.split())

    @property
    def host(self) -> str:
        """Host and port of the realm."""
        return urlsplit(self.realm).netloc


def parse(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """Read all WWW-Authenticate headers. Unreadable ones are skipped."""
    return tuple(challenge for header in headers for challenge in _challenges(header))


def _challenges(header: str) -> Iterable[Challenge]:
    position = 0
    while match := _SCHEME.match(header, position):
        position = match.end()
        found: dict[str, str] = {}
        while parameter := _PARAMETER.match(header, position):
            position = parameter.end()
            value = parameter["quoted"] if parameter["quoted"] is not None else parameter["bare"]
            found[parameter["key"].lower()] = re.sub(r"\\(.)", r"\1", value)
        yield Challenge(
            match["scheme"].lower(), found.get("realm", ""), found.get("service", ""), found.get("scope", "")
        )
        # One header may hold several challenges. Text that is no parameter is skipped up to the next comma.
        position = header.find(",", position) + 1 or len(header)


def token_url(challenge: Challenge, more: Iterable[tuple[str, str]] = ()) -> str:
    """Return the address that a token is asked from. Keys are sorted, since the signature covers the address."""
    parts = urlsplit(challenge.realm)
    query = [*parse_qsl(parts.query), *more, *(("scope", scope) for scope in challenge.scopes)]
    if challenge.service:
        query.append(("service", challenge.service))
    return urlunsplit(parts._replace(query=urlencode(sorted(query, key=lambda pair: pair[0]))))


def signed_text(url: str) -> bytes:
    """Return the text that a request for a token from `url` must sign."""
    return f"GET,{url},{_NOTHING}".encode()
