"""Which Host headers are answered: a guard against names that an attacker points at this machine.

A page from http://evil.example may ask http://evil.example without any Origin policy in the way. Its owner needs only
to let that name stand for this machine's address once the page is loaded (DNS rebinding). The browser still names the
host that it believes to ask, which gives the attack away.

A connection over the loopback interface is judged as Ollama does. On any other interface Ollama judges nothing, and
honest clients use names that the server cannot know, so that three things are told apart there:

- Addresses, this machine's own names, and names without a dot, which no stranger can own, are always served.
- Names in the setting PUNA_ALLOWED_HOSTS are served. Once it is set, all other names with a dot are refused.
- Without the setting, another name is refused only when a browser asks, and not from an origin that OLLAMA_ORIGINS
  allows. Programs can send any Host, and need no trick to do so.
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
"""The beginning of every browser's User-Agent."""

Verdict = Literal["address", "name", "refused", "unlisted"]


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules for requests: the policy of origins, and the names in the setting."""

    origins: Policy
    names: tuple[str, ...]
    """In lower case. One that begins with a dot stands for every name that ends so; "*" stands for all."""

    def judge(self, header: str, headers: Mapping[str, str], *, local: bool) -> Verdict:
        """Judge a request by the host that it names. `local`: it came over the loopback interface.

        "refused" is Ollama's refusal, "unlisted" the one that the setting can change.
        """
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
        """Tell whether a browser asks for a page from an origin that no setting allows."""
        origin = headers.get("Origin", "")
        if self.origins.everyone or (origin and self.origins.allows(origin)):
            return False
        return any(name in headers for name in _BROWSER_HEADERS) or _BROWSERS in headers.get("User-Agent", "")


def names(allowed: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the setting as Rules takes them: `*.example.com` means `.example.com`."""
    found = (each.strip().lower().removesuffix(".") for each in allowed)
    return tuple(each if each == "*" else each.removeprefix("*") for each in found if each)


def unlisted(header: str) -> RestError:
    """Make the error for a name that the setting could allow."""
    return RestError(403, f"the host {quote(header[:100])} is not allowed; PUNA_ALLOWED_HOSTS can name it")


def judge(header: str) -> Literal["address", "name", "refused"]:
    """Tell an accepted address from an accepted name and from what is refused."""
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
    """Tell whether a bound address can be reached from this machine only."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _without_port(header: str) -> str:
    """Split as Go's net.SplitHostPort does; what it refuses is taken as it stands."""
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
    """Tell whether an address is one of this machine's: only those can be bound."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
