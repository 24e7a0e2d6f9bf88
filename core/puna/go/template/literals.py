"""Go's literals: quoted strings, character constants and numbers."""

import re
from typing import Final

from puna.go import json as gojson
from puna.go.template.lexer import Kind
from puna.go.template.nodes import NumberNode

_ESCAPES: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}
_UNDERSCORES: Final = re.compile(r"[0-9a-fA-F](?:_?[0-9a-fA-F])*")
_DIGITS: Final = r"\d+(?:_\d+)*"
_FLOAT: Final = re.compile(rf"[+-]?(?:{_DIGITS}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:[eE][+-]?{_DIGITS})?")
_HEX_FLOAT: Final = re.compile(r"([+-]?)0[xX]_?([0-9a-fA-F_]*)(?:\.([0-9a-fA-F_]*))?[pP]([+-]?\d+)")
SYNTAX_ERROR: Final = "invalid syntax"


def unquote(text: str) -> str:
    """Return the text of a literal `"…"` or `` `…` ``. ValueError has Go's text."""
    if text[0] == "`":
        # Go removes carriage returns from raw strings, so that files with either line end mean the same.
        return text[1:-1].replace("\r", "")
    out = bytearray()
    at = 1
    while at < len(text) - 1:
        value, at = _char(text, at, '"')
        out += value
    return out.decode("utf-8", "surrogateescape")


def unquote_char(text: str) -> int:
    """Return the code point of a literal `'…'`. ValueError has Go's text."""
    if text == "''":
        raise ValueError(SYNTAX_ERROR)
    value, at = _char(text, 1, "'")
    if text[at:] != "'":
        raise ValueError(f"malformed character constant: {text}")
    if len(value) == 1:
        return value[0]
    return ord(value.decode("utf-8", "surrogateescape"))


def _char(text: str, at: int, quote: str) -> tuple[bytes, int]:
    """Read one character or escape. Return its bytes and its end."""
    char = text[at]
    if char != "\\":
        return char.encode("utf-8", "surrogateescape"), at + 1
    char = text[at + 1]
    at += 2
    if char in _ESCAPES:
        return _ESCAPES[char].encode(), at
    # Go allows the escape of a quote only in the kind of literal that the quote closes.
    if char in "\"'":
        if char != quote:
            raise ValueError(SYNTAX_ERROR)
        return char.encode(), at
    width = {"x": 2, "u": 4, "U": 8}.get(char)
    if width:
        digits, base = text[at : at + width], 16
    elif "0" <= char <= "7":
        at, width, base = at - 1, 3, 8
        digits = text[at : at + 3]
    else:
        raise ValueError(SYNTAX_ERROR)
    if not re.fullmatch("[0-7]{3}" if base == 8 else f"[0-9a-fA-F]{{{width}}}", digits):
        raise ValueError(SYNTAX_ERROR)
    value = int(digits, base)
    at += width
    # \u and \U are code points. \x and octal escapes are bytes, which may be parts of a character.
    if width > 3:
        if value > 0x10FFFF or 0xD800 <= value < 0xE000:
            raise ValueError(SYNTAX_ERROR)
        return chr(value).encode(), at
    if value > 255:
        raise ValueError(SYNTAX_ERROR)
    # "\xff" is a code point in a character literal and a byte in a string. Both are one byte here.
    return bytes([value]), at


def integer(text: str) -> int | None:
    """Return an integer in base 10 or in the base of its prefix; None if the text is not an integer."""
    body = text.lstrip("+-") if text[:1] in ("+", "-") else text
    sign = -1 if text.startswith("-") else 1
    base, digits = 10, body
    prefix = body[:2].lower()
    if prefix in ("0x", "0o", "0b"):
        base, digits = {"0x": 16, "0o": 8, "0b": 2}[prefix], body[2:].removeprefix("_")
    # A leading zero means octal, as in C.
    elif len(body) > 1 and body.startswith("0"):
        base, digits = 8, body[1:].removeprefix("_")
    if not _UNDERSCORES.fullmatch(digits):
        return None
    try:
        return sign * int(digits.replace("_", ""), base)
    # Python refuses to convert more than 4,300 decimal digits. Such a number fits none of Go's types either.
    except ValueError:
        return None


def floating(text: str) -> float | None:
    """Return a decimal or hexadecimal float; None if the text is not a float, or is too large."""
    if match := _HEX_FLOAT.fullmatch(text):
        sign, whole, fraction, power = match.groups(default="")
        digits = (whole + fraction).replace("_", "")
        if not digits:
            return None
        try:
            return float.fromhex(f"{sign}0x{whole}.{fraction}p{power}".replace("_", ""))
        except (ValueError, OverflowError):
            return None
    if not _FLOAT.fullmatch(text):
        return None
    value = float(text.replace("_", ""))
    return None if value in (float("inf"), float("-inf")) else value


def number(position: int, text: str, kind: Kind) -> NumberNode:
    """Return the node of a number with its value in each type that it fits. ValueError has Go's text."""
    if kind is Kind.CHAR_CONSTANT:
        value = unquote_char(text)
        return NumberNode(position=position, text=text, integer=value, unsigned=value, float=float(value))
    if kind is Kind.COMPLEX:
        # The last sign separates the parts, unless it belongs to an exponent.
        split = max(text.rfind("+", 0, -1), text.rfind("-", 0, -1))
        if text[split - 1] in "eEpP":
            split = max(text.rfind("+", 0, split), text.rfind("-", 0, split))
        real, imaginary = _real(text[:split]), _real(text[split:-1])
        if real is None or imaginary is None:
            raise ValueError("syntax error scanning complex number")
        return _simplified(NumberNode(position=position, text=text, complex=complex(real, imaginary)))
    if text.endswith("i") and (imaginary := _real(text[:-1])) is not None:
        return _simplified(NumberNode(position=position, text=text, complex=complex(0, imaginary)))
    node = NumberNode(position=position, text=text)
    whole = integer(text)
    if whole is not None:
        node.integer = whole if -(2**63) <= whole < 2**63 else None
        node.unsigned = whole if 0 <= whole < 2**64 and text[0] not in "+-" else node.unsigned
        # Go accepts a signed zero as unsigned.
        if whole == 0:
            node.unsigned = 0
    if node.integer is not None or node.unsigned is not None:
        node.float = float(node.integer if node.integer is not None else node.unsigned or 0)
        return node
    value_ = floating(text)
    if value_ is None:
        raise ValueError(f"illegal number syntax: {gojson.quote(text)}")
    # A float that looks like an integer is an integer beyond 64 bits.
    if not set(text) & set(".eEpP"):
        raise ValueError(f"integer overflow: {gojson.quote(text)}")
    node.float = value_
    _whole(node, value_)
    return node


def _real(text: str) -> float | None:
    value = floating(text)
    if value is None and (whole := integer(text)) is not None:
        value = float(whole)
    return value


def _simplified(node: NumberNode) -> NumberNode:
    if node.complex is not None and node.complex.imag == 0:
        node.float = node.complex.real
        _whole(node, node.float)
    return node


def _whole(node: NumberNode, value: float) -> None:
    """Give a float without a fraction an integer value too."""
    if value == int(value):
        if -(2**63) <= value < 2**63:
            node.integer = int(value)
        if 0 <= value < 2**64:
            node.unsigned = int(value)
