"""Formats of texts: patterns for formats that pydantic, zod and OpenAPI write and llguidance does not know.

JSON Schema treats an unknown format as an annotation, so formats that are not listed here constrain nothing. Some
patterns allow less than the format (only networks whose host bits are zero, for example); none allows more.
"""

from typing import Any, Final

KNOWN: Final = frozenset(("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"))
"""Formats that llguidance enforces itself."""
# Where a known format is narrower than the one that was asked for, the answer is still valid.
_ALIASES: Final = {
    "guid": "uuid",
    "url": "uri",
    "iri": "uri",
    "uri-reference": "uri",
    "iri-reference": "uri",
    "idn-email": "email",
    "idn-hostname": "hostname",
    "ip": "ipv4",
    "ipvanyaddress": "ipv4",
    "datetime": "date-time",
}
"""Formats that contain another format which llguidance knows."""
_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"({_BYTE}\.){{3}}{_BYTE}"
_HEX = "[0-9a-fA-F]{1,4}"
_IPV6 = f"(({_HEX}:){{7}}{_HEX}|({_HEX}:){{1,6}}:{_HEX}|({_HEX}:){{1,7}}:|::({_HEX})?)"
_TO_32 = "(3[0-2]|[12]?[0-9])"
_TO_128 = "(12[0-8]|1[01][0-9]|[1-9]?[0-9])"
# Only networks that end at whole bytes, since Python's ipaddress, and so pydantic, refuses networks whose host bits are
# not zero, and other masks would need a pattern for each length.
_NETWORK4 = rf"({_IPV4}/32|({_BYTE}\.){{3}}0/24|({_BYTE}\.){{2}}0\.0/16|{_BYTE}\.0\.0\.0/8|0\.0\.0\.0/0)"
_NETWORK6 = f"(({_HEX}:){{7}}{_HEX}/128|({_HEX}:){{4}}:/64|({_HEX}:){{3}}:/48|({_HEX}:){{2}}:/32|::/0)"
_PATTERNS: Final = {
    **{
        f"uuid{dash}{version}": f"[0-9a-fA-F]{{8}}-[0-9a-fA-F]{{4}}-{version}[0-9a-fA-F]{{3}}-[89abAB][0-9a-fA-F]{{3}}"
        "-[0-9a-fA-F]{12}"
        for version in range(1, 9)
        for dash in ("", "v")
    },
    "byte": "([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?",
    "base64": "([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?",
    "base64url": "([A-Za-z0-9_-]{4})*([A-Za-z0-9_-]{2}==|[A-Za-z0-9_-]{3}=)?",
    "ulid": "[0-7][0-9A-HJKMNP-TV-Z]{25}",
    "cuid": "c[a-z0-9]{24}",
    "cuid2": "[a-z][a-z0-9]{23}",
    "nanoid": "[A-Za-z0-9_-]{21}",
    "xid": "[0-9a-v]{20}",
    "ksuid": "[A-Za-z0-9]{27}",
    "objectid": "[0-9a-f]{24}",
    "e164": r"\+[1-9][0-9]{6,14}",
    "mac": "([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}",
    "color": "#([0-9a-fA-F]{3}|[0-9a-fA-F]{6})",
    "ipv4network": _NETWORK4,
    "ipv6network": _NETWORK6,
    "ipvanynetwork": _NETWORK4,
    "cidrv4": f"{_IPV4}/{_TO_32}",
    "cidrv6": f"{_IPV6}/{_TO_128}",
    "ipv4interface": f"{_IPV4}/{_TO_32}",
    "ipv6interface": f"{_IPV6}/{_TO_128}",
    "ipvanyinterface": f"{_IPV4}/{_TO_32}",
    "json-pointer": "(/([^~/]|~[01])*)*",
    "http-url": "https?://[A-Za-z0-9-]+([.][A-Za-z0-9-]+)*(:[0-9]{1,4})?(/[A-Za-z0-9._~/%+-]*)?",
    "local-time": r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?",
}


def replace_format(schema: dict[str, Any]) -> None:
    """Replace a format that llguidance does not know by a pattern, or remove it if it is unknown."""
    format_name = schema.get("format")
    if "format" not in schema or format_name in KNOWN:
        return
    del schema["format"]
    if not isinstance(format_name, str):
        return
    if format_name in _ALIASES:
        schema["format"] = _ALIASES[format_name]
    # Beside `pattern`, of which a schema has only one, and which may stand there already.
    elif format_name in _PATTERNS and isinstance(schema.setdefault("allOf", []), list):
        schema["allOf"] = [*schema["allOf"], {"pattern": f"^({_PATTERNS[format_name]})$"}]


def format_pattern(format_name: object) -> str | None:
    """Return a pattern for all texts of a format; None if there is none."""
    if format_name == "uuid":
        return "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
    return f"^({_PATTERNS[format_name]})$" if isinstance(format_name, str) and format_name in _PATTERNS else None
