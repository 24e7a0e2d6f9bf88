"""Origins, the scheme, host and port that a request goes to, and patterns of them that settings name.

Addresses are read by yarl, as the HTTP client reads them, so that both mean the same host.
"""

import re
from dataclasses import dataclass
from typing import Final

from yarl import URL

PORTS: Final = {"http": 80, "https": 443}
_HOST: Final = re.compile(r"[a-z0-9_.:-]+")


@dataclass(frozen=True, slots=True)
class Origin:
    """The scheme, host and port of a request. Scheme and host are in lower case."""

    scheme: str
    """http or https."""
    host: str
    """A name or an address. IPv6 addresses have no brackets."""
    port: int

    @classmethod
    def of(cls, url: str) -> "Origin":
        """Return the origin of an address. Raises ValueError if it has none, or if it contains a user name."""
        parsed = URL(url, encoded=True)
        host = (parsed.raw_host or "").lower()
        # An address with a user name is refused: its readers disagree about the host in user@host forms.
        if parsed.scheme not in PORTS or not host or parsed.port is None or parsed.raw_user or parsed.raw_password:
            raise ValueError(f"{url!r} is not an address of http or https")
        return cls(parsed.scheme, host, parsed.port)

    @property
    def netloc(self) -> str:
        """The host, and the port if it is not the scheme's default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}"


@dataclass(frozen=True, slots=True)
class Pattern:
    """An entry of a list of hosts: [scheme://]host[:port], where *.example.com means all hosts below example.com."""

    scheme: str
    """Empty for both schemes."""
    host: str
    port: int
    """0 for the scheme's default port."""

    @classmethod
    def parse(cls, text: str) -> "Pattern":
        """Read an entry. Raises ValueError."""
        scheme, separator, rest = text.strip().rpartition("://")
        origin = Origin.of(f"{scheme or 'https'}://{rest.removeprefix('*.')}")
        if URL(f"https://{rest}").path not in ("", "/") or _HOST.fullmatch(origin.host) is None:
            raise ValueError(f"{text!r} is no host")
        explicit = URL(f"{origin.scheme}://{rest.removeprefix('*.')}").explicit_port
        wild = "*." if rest.startswith("*.") else ""
        return cls(origin.scheme if separator else "", wild + origin.host, explicit or 0)

    def covers(self, origin: Origin) -> bool:
        """Return whether the pattern matches an origin."""
        if self.scheme not in ("", origin.scheme) or (self.port or PORTS[origin.scheme]) != origin.port:
            return False
        if self.host.startswith("*."):
            # The pattern keeps its dot, so that evil-example.com does not match *.example.com.
            return origin.host.endswith(self.host[1:]) and origin.host != self.host[1:]
        return origin.host == self.host


def credentials_origin(text: str) -> Origin | None:
    """Return the origin that a credential is for, None if the text names none.

    The text is PUNA_REGISTRY_HOST or a key of docker's configuration, which may have a path. Without a
    scheme https is meant.
    """
    scheme, _, rest = text.strip().rpartition("://")
    try:
        return Origin.of(f"{scheme.lower() or 'https'}://{rest.partition('/')[0]}")
    except ValueError:
        return None
