"""JSON encoding and quoting as in Go, byte for byte.

Python's encoder differs from Go's in three ways. Go escapes `<`, `>`, `&`, U+2028 and U+2029 in strings. It writes a
float with the fewest digits that read back as the same float, without an exponent between 1e-6 and 1e21. And it writes
a 32-bit float with the digits that 32 bits need. Objects keep their order unless `sort_keys` is set.
"""

import functools
import importlib
import json
import math
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from decimal import ROUND_HALF_UP, ROUND_UP, Context
from typing import Any, Final

_HTML: Final = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_HTML_RE: Final = re.compile("[<>&\u2028\u2029]")
SURROGATE: Final = re.compile("[\ud800-\udfff]")
"""A lone surrogate, which no UTF-8 text can hold."""
_PLAIN64: Final = (1e-6, 1e21)
_PLAIN32: Final = (9.999999974752427e-07, 1.0000000200408773e21)
"""Range of 32-bit floats that are written without an exponent. Go compares with 1e-6 and 1e21 rounded to 32 bits."""
_LEAST_NORMAL32: Final = 2.0**-126
_UNESCAPED: Final = re.compile(r"[ !#-%'-;=?-\[\]-~]*+")
_PLAIN: Final = re.compile(r"[ !#-\[\]-~]*+")
LONG: Final = 1 << 18
"""Characters encoded per call into native code, which holds the interpreter lock."""
QUOTED: Final = 16_384
"""Characters after which a quoted text is cut. Quotes occur in error messages, where more does not help."""
_string = json.encoder.encode_basestring


class Float32(float):
    """A float of 32 bits. It is written with the fewest digits that identify it among 32-bit floats."""

    __slots__ = ()


class Raw(str):
    """JSON text that is written unchanged."""

    __slots__ = ()


def dumps(value: object, *, sort_keys: bool = False) -> str:
    """Encode a value without spaces. Supports the types of json.dumps, Float32 and Raw. ValueError: see number."""
    if isinstance(value, str):
        return value if isinstance(value, Raw) else string(value)
    if value is None:
        return "null"
    # True and False come before int: bool is a subclass of int in Python.
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
    if len(text) > LONG:
        return '"' + "".join([string(text[at : at + LONG])[1:-1] for at in range(0, len(text), LONG)]) + '"'
    # Almost every text of a token is one that needs no escape.
    if _UNESCAPED.fullmatch(text):
        return f'"{text}"'
    # This encoder of Python leaves characters beyond ASCII as they are, as Go does.
    out = _string(text)
    out = html_escaped(out)
    return out if out.isascii() else replace_lone_surrogates(out)


def html_escaped(text: str) -> str:
    """Escape the characters in JSON text that only Go escapes: `<`, `>`, `&`, U+2028 and U+2029."""
    # One search first: most texts hold none of the five characters, and this runs for every delta of an answer.
    if _HTML_RE.search(text):
        for char, escape in _HTML.items():
            text = text.replace(char, escape)
    return text


def replace_lone_surrogates(text: str) -> str:
    """Replace lone surrogates by U+FFFD, as Go does. Neither UTF-8 nor protobuf can carry them."""
    if text.isascii():
        return text
    if len(text) <= LONG:
        return SURROGATE.sub("\ufffd", text)
    return "".join([SURROGATE.sub("\ufffd", text[at : at + LONG]) for at in range(0, len(text), LONG)])


def number(value: float) -> str:
    """Encode a float. ValueError: it is NaN or infinite."""
    if not math.isfinite(value):
        raise ValueError(f"json: unsupported value: {value}")
    digits, exponent, sign = _shortest(value)
    # Zero has no first digit, so its exponent means nothing. Go keeps the sign of minus zero.
    if value == 0:
        return sign + "0"
    least, most = _PLAIN32 if isinstance(value, Float32) else _PLAIN64
    if least <= abs(value) < most:
        return sign + _plain(digits, exponent)
    mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    return f"{sign}{mantissa}e{'-' if exponent < 0 else '+'}{abs(exponent)}"


def percent_v(value: float) -> str:
    """Format a float64 like Go's %v: without an exponent for decimal exponents from -4 to 5, else like 1e+06."""
    digits, exponent, sign = _shortest(value)
    if value == 0:
        return sign + "0"
    if -4 <= exponent < 6:
        return sign + _plain(digits, exponent)
    mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    return f"{sign}{mantissa}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"


def floats32(packed: bytes) -> str:
    """Encode an array of little-endian 32-bit floats. ValueError: see number."""
    if (fast := _fast_floats()) is not None:
        return fast(packed)
    return _each(map(Float32, struct.unpack(f"<{len(packed) // 4}f", packed)))


def floats64(values: Iterable[float]) -> str:
    """Encode an array of floats. ValueError: see number."""
    return _each(values)


def _each(values: Iterable[float]) -> str:
    return "[" + ",".join(map(number, values)) + "]"


@functools.cache
def _fast_floats() -> Callable[[bytes], str] | None:
    """Return a function that does floats32's work a hundred times as fast, or None if numpy is not installed."""
    try:
        numpy, orjson = map(importlib.import_module, ("numpy", "orjson"))
    except ImportError:
        return None

    def written(floats: Any) -> str:  # noqa: ANN401 - an array of numpy, which is optional here
        text: bytes = orjson.dumps(floats.astype("f4", copy=False), option=orjson.OPT_SERIALIZE_NUMPY)
        return text.decode()

    # Versions of orjson differ in the least number that they write without an exponent, and vectors have many small
    # ones.
    least = next(each for each in (_PLAIN32[0], 1e-5, 1e-3) if "e" not in written(numpy.array([1.5 * each], "f4")))

    def encode(packed: bytes) -> str:
        floats: Any = numpy.frombuffer(packed, "<f4")
        size = numpy.abs(floats)
        # orjson's digits equal Go's except for powers of two, which may lie in the middle between two decimals. Its
        # notation differs for integers and for numbers with an exponent.
        # The last test is negated, not reversed, so that NaN passes it: `number` then raises its error.
        powers = numpy.frombuffer(packed, "<u4") & 0x7FFFFF == 0
        own = numpy.flatnonzero(
            powers | (floats == numpy.trunc(floats)) | (size < 1.5 * least) | ~(size < 1e6)
        ).tolist()
        text = written(floats)
        if not own:
            return text
        parts = text[1:-1].split(",")
        for index in own:
            parts[index] = number(Float32(floats[index]))
        return "[" + ",".join(parts) + "]"

    return encode


def quote(text: str) -> str:
    """Quote a text like Go's strconv.Quote (%q), cut after QUOTED characters."""
    if len(text) > QUOTED:
        text = text[:QUOTED] + "…"
    # One match settles most texts: they hold nothing to escape.
    if _PLAIN.fullmatch(text):
        return f'"{text}"'
    return '"' + "".join(map(_quoted, text)) + '"'


def _quoted(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char in _GO_ESCAPES:
        return _GO_ESCAPES[char]
    if char < " " or char == "\x7f":
        return f"\\x{ord(char):02x}"
    if char.isprintable():
        return char
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


_GO_ESCAPES: Final = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}


def _shortest(value: float) -> tuple[str, int, str]:
    """Return the shortest digits that read back as the number, the exponent of the first digit, and the sign."""
    text = _repr32(value) if isinstance(value, Float32) else repr(float(value))
    sign, text = ("-", text[1:]) if text.startswith("-") else ("", text)
    mantissa, _, power = text.partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = whole + fraction
    exponent = len(whole) - 1 + int(power or 0)
    # 0.00123 gives leading zeros. Each of them moves the first digit one place to the right.
    stripped = digits.lstrip("0")
    exponent -= len(digits) - len(stripped)
    return stripped.rstrip("0") or "0", exponent, sign


def _repr32(value: float) -> str:
    # Six digits always survive a round trip through 32 bits, except among subnormals, which have less than 24 bits.
    # Floats are twice as dense below a power of two as above. A shorter decimal may therefore lie above it.
    power_of_two = abs(math.frexp(value)[0]) == 0.5
    for precision in range(6 if abs(value) >= _LEAST_NORMAL32 else 1, 9):
        texts = [f"{value:.{precision}g}"]
        if power_of_two:
            roundings = (ROUND_HALF_UP, ROUND_UP)
            texts = [f"{Context(precision, each).create_decimal_from_float(value):e}" for each in roundings]
        for text in texts:
            if struct.pack("<f", float(text)) == struct.pack("<f", value):
                return text
    return f"{value:.9g}"


def _plain(digits: str, exponent: int) -> str:
    if exponent < 0:
        return "0." + "0" * (-exponent - 1) + digits
    if len(digits) <= exponent + 1:
        return digits + "0" * (exponent + 1 - len(digits))
    return digits[: exponent + 1] + "." + digits[exponent + 1 :]
