"""Which Host headers are answered: a guard against names that an attacker points at this machine."""

import ipaddress
import socket
from typing import Final, Literal

_PRIVATE: Final = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))
_LOCAL_ENDINGS: Final = (".localhost", ".local", ".internal")


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


def _is_ours(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Tell whether an address is one of this machine's: only those can be bound."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
