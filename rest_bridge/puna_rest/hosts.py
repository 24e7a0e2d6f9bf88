"""The rules for the Host header, a guard against DNS rebinding.

The Origin policy does not stop a page of http://evil.example from sending requests to http://evil.example. The owner of
the name can point it at this machine's address once the page is loaded. The Host header still names evil.example, so
the server can refuse it.

On the loopback interface the rules are Ollama's. On other interfaces Ollama has none, and honest clients use names that
the server cannot know. The rules there are:

- Addresses, this machine's own names, and names without a dot, which cannot be registered, are accepted.
- Names in PUNA_ALLOWED_HOSTS are accepted. If the setting is not empty, other names with a dot are refused.
- If it is empty, other names are refused for browsers alone, unless OLLAMA_ORIGINS allows the page's origin. Programs
  other than browsers can send any Host and need no DNS rebinding.
"""

import ipaddress
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from puna.go.json import quote
from puna_rest.cors import Policy
from puna_rest.errors import RestError

_PRIVATE: Final = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))
_LOCAL_ENDINGS: Final = (".localhost", ".local", ".internal")
_BROWSER_HEADERS: Final = ("Origin", "Referer", "Sec-Fetch-Site", "Sec-Fetch-Dest", "Upgrade-Insecure-Requests")
_BROWSERS: Final = "Mozilla/"
"""The start of every browser's User-Agent."""

Verdict = Literal["address", "name", "refused", "unlisted"]


@dataclass(frozen=True, slots=True)
class Rules:
    """The Origin policy and the names of PUNA_ALLOWED_HOSTS."""

    origins: Policy
    names: tuple[str, ...]
    """In lower case. A name with a leading dot matches every name that ends with it; "*" matches all."""

    def judge(self, header: str, headers: Mapping[str, str], *, local: bool) -> Verdict:
        """Judge a request by its Host header. `local`: the request came over the loopback interface.

        Returns "refused" where Ollama refuses too, and "unlisted" where PUNA_ALLOWED_HOSTS could allow the name.
        """
        # Ollama checks the host on loopback only. A name in the setting is accepted there too.
        if local:
            verdict = judge(header)
            return "name" if verdict == "refused" and self._lists(header) else verdict
        name = _without_port(header).lower().removesuffix(".")
        if _is_address(name) or judge(name) != "refused" or self._lists(header):
            return "address"
        if self.names:
            return "unlisted"
        return "address" if "." not in name or not self._is_strange_page(headers) else "unlisted"

    def _lists(self, header: str) -> bool:
        name = _without_port(header).lower().removesuffix(".")
        return any(name == each or each == "*" or (each.startswith(".") and name.endswith(each)) for each in self.names)

    def _is_strange_page(self, headers: Mapping[str, str]) -> bool:
        """Return whether the request comes from a browser, for a page whose origin no setting allows."""
        origin = headers.get("Origin", "")
        if self.origins.everyone or (origin and self.origins.allows(origin)):
            return False
        return any(name in headers for name in _BROWSER_HEADERS) or _BROWSERS in headers.get("User-Agent", "")


def names(allowed: Sequence[str]) -> tuple[str, ...]:
    """Return the setting's names as Rules holds them: `*.example.com` becomes `.example.com`."""
    found = (each.strip().lower().removesuffix(".") for each in allowed)
    return tuple(each if each == "*" else each.removeprefix("*") for each in found if each)


def unlisted(header: str) -> RestError:
    """Return the error for a name that PUNA_ALLOWED_HOSTS could allow."""
    return RestError(403, f"the host {quote(header[:100])} is not allowed; PUNA_ALLOWED_HOSTS can name it")


def judge(header: str) -> Literal["address", "name", "refused"]:
    """Classify a Host header by Ollama's rules for loopback: accepted address, accepted name, or refused."""
    host = _without_port(header)
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        name = host.lower()
        own = name in ("", "localhost", socket.gethostname().lower())
        return "name" if own or name.endswith(_LOCAL_ENDINGS) else "refused"
    if address.version == 6 and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_loopback or address.is_unspecified or any(address in net for net in _PRIVATE):
        return "address"
    return "address" if _is_ours(address) else "refused"


def is_loopback(address: str) -> bool:
    """Return whether a bound address is reachable from this machine alone."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _without_port(header: str) -> str:
    """Return the host like Go's net.SplitHostPort, and the whole header where that function fails."""
    host, colon, port = header.rpartition(":")
    if not colon or "]" in port:
        return header
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1]
    return header if ":" in host else host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


def _is_ours(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Return whether an address belongs to this machine, by trying to bind it."""
    # UDP, because binding it sends nothing and disturbs no listener.
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
