"""JSON as Go's encoder writes it, and Go's quoting: the forms that clients of the reference know.

Strings have `<`, `>`, `&`, U+2028 and U+2029 escaped; floats are the shortest digits that round-trip, plain between
1e-6 and 1e21; objects keep their order unless told to sort.
"""

import json
import math
import re
import struct
from collections.abc import Mapping
from typing import Final

_HTML: Final = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_HTML_RE: Final = re.compile("[<>&\u2028\u2029]")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_string = json.encoder.encode_basestring


class Float32(float):
    """A float that came from 32 bits and prints with the digits that 32 bits need."""

    __slots__ = ()


class Raw(str):
    """JSON text that is written as it stands."""

    __slots__ = ()


def dumps(value: object, *, sort_keys: bool = False) -> str:
    """Encode dicts, lists, tuples, strings, numbers, booleans, None, Float32 and Raw, without spaces."""
    if isinstance(value, str):
        return value if isinstance(value, Raw) else string(value)
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping):
        items = sorted(value.items()) if sort_keys else value.items()
        return "{" + ",".join(f"{string(key)}:{dumps(item, sort_keys=sort_keys)}" for key, item in items) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join([dumps(item, sort_keys=sort_keys) for item in value]) + "]"
    raise TypeError(f"{type(value).__name__} has no JSON form")


def string(text: str) -> str:
    """Encode a string. A lone surrogate becomes U+FFFD."""
    out = _string(text)
    if _HTML_RE.search(out):
        out = _HTML_RE.sub(lambda match: _HTML[match[0]], out)
    return _SURROGATE.sub("\ufffd", out) if not out.isascii() else out


def number(value: float) -> str:
    """Encode a float; a Float32 with its own shortest digits. Raises ValueError for NaN and infinities."""
    if not math.isfinite(value):
        raise ValueError(f"json: unsupported value: {value}")
    digits, exponent, sign = _shortest(value)
    if value == 0:
        return sign + "0"
    if 1e-6 <= abs(value) < 1e21:
        return sign + _plain(digits, exponent)
    mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    return f"{sign}{mantissa}e{'-' if exponent < 0 else '+'}{abs(exponent)}"


def percent_v(value: float) -> str:
    """Write a float64 as Go's %v does: plain for decimal exponents from -4 to 5, else as 1e+06."""
    digits, exponent, sign = _shortest(value)
    if value == 0:
        return sign + "0"
    if -4 <= exponent < 6:
        return sign + _plain(digits, exponent)
    mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    return f"{sign}{mantissa}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"


def quote(text: str) -> str:
    """Quote as Go's strconv.Quote (%q) does."""
    out = ['"']
    for char in text:
        if char in '"\\':
            out.append("\\" + char)
        elif char in _GO_ESCAPES:
            out.append(_GO_ESCAPES[char])
        elif char < " " or char == "\x7f":
            out.append(f"\\x{ord(char):02x}")
        elif char.isprintable():
            out.append(char)
        else:
            out.append(f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}")
    return "".join(out) + '"'


_GO_ESCAPES: Final = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}


def _shortest(value: float) -> tuple[str, int, str]:
    """Return the shortest digits that round-trip, the decimal exponent of the first, and the sign."""
    text = _repr32(value) if isinstance(value, Float32) else repr(float(value))
    sign, text = ("-", text[1:]) if text.startswith("-") else ("", text)
    mantissa, _, power = text.partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = whole + fraction
    exponent = len(whole) - 1 + int(power or 0)
    stripped = digits.lstrip("0")
    exponent -= len(digits) - len(stripped)
    return stripped.rstrip("0") or "0", exponent, sign


def _repr32(value: float) -> str:
    for precision in range(6, 9):
        text = f"{value:.{precision}g}"
        if struct.pack("<f", float(text)) == struct.pack("<f", value):
            return text
    return f"{value:.9g}"


def _plain(digits: str, exponent: int) -> str:
    if exponent < 0:
        return "0." + "0" * (-exponent - 1) + digits
    if len(digits) <= exponent + 1:
        return digits + "0" * (exponent + 1 - len(digits))
    return digits[: exponent + 1] + "." + digits[exponent + 1 :]
