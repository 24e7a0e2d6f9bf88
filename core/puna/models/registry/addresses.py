"""Which IP addresses belong to the public internet.

A registry may refer this server only to these. This server can reach other addresses too (loopback, private networks,
link-local addresses such as the metadata services of clouds, multicast, reserved ranges) that the
registry itself may not reach. A registry must not make this server send requests to them.
"""

import ipaddress
from typing import Final

# IANA's registries of special purpose; the standard library's is_global differs between versions of Python.
_SPECIAL_4: Final = tuple(
    ipaddress.IPv4Network(each)
    for each in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/3"),
    )
)
_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
"""The only range from which public IPv6 addresses are assigned."""
_SPECIAL_6: Final = tuple(
    ipaddress.IPv6Network(each)
    # Protocols (Teredo among them), documentation, 6to4. Tunnels carry packets to an IPv4 address within theirs.
    for each in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
_TRANSLATED: Final = ipaddress.IPv6Network("64:ff9b::/96")
"""NAT64: the last four bytes are an IPv4 address."""


def address_of(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Read an IP address in its canonical form, None if the text is no such address.

    An IPv4 address that is written as one of IPv6 is the IPv4 address: a connection to either is the same.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Return whether an address, as address_of returns it, is public."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in each for each in _SPECIAL_4)
    # A gateway sends the packet on to the IPv4 address within, so that address decides.
    if address in _TRANSLATED:
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _UNICAST and not any(address in each for each in _SPECIAL_6)
