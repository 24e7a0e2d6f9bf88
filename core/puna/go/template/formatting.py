"""Formatting of values like Go's fmt package, for print and the verbs of printf."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from puna.go import json as gojson
from puna.go.template.values import (
    Boxed,
    Map,
    Missing,
    Pointer,
    Slice,
    Struct,
    Unsigned,
    elements,
    entries,
    methods,
    sorted_keys,
    type_name,
)


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb of printf with its flags. Width and precision are None if absent."""

    letter: str = "v"
    plus: bool = False
    minus: bool = False
    sharp: bool = False
    space: bool = False
    zero: bool = False
    complaining: bool = False
    """True if the output is part of an error notice such as %!d(...), in which fmt calls no methods."""
    width: int | None = None
    precision: int | None = None


_PLAIN: Final = Verb()
_NUMBER_BASES: Final = {"b": "b", "o": "o", "O": "o", "x": "x", "X": "X", "d": "d"}
_PREFIXES: Final = {"b": "0b", "o": "0", "x": "0x", "X": "0X"}


def text(value: object) -> str:
    """Format a value like %v."""
    return value if isinstance(value, str) else formatted(value, _PLAIN)


def printed(value: object) -> str:
    """Format a value like an action: pointers are followed, and MISSING prints as "<no value>"."""
    if isinstance(value, str):
        return value
    if isinstance(value, Missing):
        return value.value
    if isinstance(value, Pointer) and value.target is not None:
        value = value.target
    return formatted(value, _PLAIN)


def sprint(values: Sequence[object], *, line: bool = False) -> str:
    """Join values like Sprint, which puts a space between two that are not strings; like Sprintln if `line`."""
    out: list[str] = []
    for i, value in enumerate(values):
        if i and (line or not (isinstance(value, str) or isinstance(values[i - 1], str))):
            out.append(" ")
        out.append(text(value))
    return "".join(out) + ("\n" if line else "")


def formatted(value: object, verb: Verb, depth: int = 0) -> str:
    """Format a value with a verb. `depth` is the level of nesting."""
    if isinstance(value, Boxed):
        value = value.value
    letter = verb.letter
    if value is None or isinstance(value, Missing):
        # At the top a nil argument is an error of the verb. Inside a structure it is a value.
        return _pad("<nil>", verb) if depth or letter in "vT" else f"%!{letter}(<nil>)"
    if letter == "T":
        return _pad(type_name(value), verb)
    method = methods(value).get("String")
    # fmt calls String only for verbs that print text, and never for Go syntax.
    if method and not verb.complaining and letter in "vsxXq" and not (letter == "v" and verb.sharp):
        return formatted(method(value), verb)
    match value:
        case bool():
            if letter in "tv":
                return _pad("true" if value else "false", verb)
        case int():
            return _integer(value, verb)
        case float():
            return _float(value, verb)
        case complex():
            if letter in "vgGeEfF":
                verb = replace(verb, letter="g") if letter == "v" else verb
                imaginary = _float(value.imag, replace(verb, plus=True, width=None))
                return _pad(f"({_float(value.real, replace(verb, width=None))}{imaginary}i)", verb)
        case str():
            return _string(value, verb)
        case _:
            return _compound(value, verb, depth)
    return _bad(value, verb)


def _bad(value: object, verb: Verb) -> str:
    return f"%!{verb.letter}({type_name(value)}={formatted(value, replace(verb, letter='v', complaining=True))})"


def _compound(value: object, verb: Verb, depth: int) -> str:
    go_syntax = verb.letter == "v" and verb.sharp
    match value:
        case Pointer():
            if value.target is None:
                return _pad("(nil)" if go_syntax else "<nil>", verb)
            if depth:
                # Go prints the address of a pointer inside a structure. An address differs from run to run, so a fixed
                # one stands for it.
                return "0xc000000000" if verb.letter in "vbodxX" else _bad(value, verb)
            # Only a pointer at the top is followed, in fmt as here.
            return "&" + _compound(value.target, verb, depth + 1)
        case Struct():
            named = verb.plus or go_syntax
            parts = [
                (f"{name}:" if named else "") + formatted(item, verb, depth + 1) for name, item in value.values.items()
            ]
            joined = (", " if go_syntax else " ").join(parts)
            return f"{value.type.name if go_syntax else ''}{{{joined}}}"
    if (mapping := entries(value)) is not None:
        return _mapping(value, mapping[0], verb, depth)
    items = elements(value)
    if items is None:
        return str(value)
    if isinstance(value, bytes) and verb.letter in "sqxX":
        return _string(value.decode("utf-8", "surrogateescape"), verb)
    parts = [formatted(item, verb, depth + 1) for item in items[0]]
    if go_syntax:
        empty = isinstance(value, Slice) and value.nil
        return type_name(value) + ("(nil)" if empty else "{" + ", ".join(parts) + "}")
    return "[" + " ".join(parts) + "]"


def _mapping(value: object, items: Mapping[str, Any], verb: Verb, depth: int) -> str:
    parts = [f"{_string(key, verb)}:{formatted(items[key], verb, depth + 1)}" for key in sorted_keys(items)]
    if verb.letter == "v" and verb.sharp:
        empty = isinstance(value, Map) and value.nil
        return type_name(value) + ("(nil)" if empty else "{" + ", ".join(parts) + "}")
    return "map[" + " ".join(parts) + "]"


def _pad(body: str, verb: Verb) -> str:
    if verb.width is None:
        return body
    if verb.minus:
        return body.ljust(verb.width)
    return body.rjust(verb.width, "0" if verb.zero else " ")


def _string(value: str, verb: Verb) -> str:
    letter = verb.letter
    if verb.precision is not None:
        value = value[: verb.precision]
    if letter == "q" or (letter == "v" and verb.sharp):
        if verb.sharp and letter == "q" and "`" not in value and value.isprintable():
            return _pad(f"`{value}`", verb)
        return _pad(gojson.quote(value), verb)
    if letter in "xX":
        raw = value.encode("utf-8", "surrogateescape")
        digits = raw.hex(" ") if verb.space else raw.hex()
        digits = digits if letter == "x" else digits.upper()
        return _pad(("0" + letter if verb.sharp and digits else "") + digits, verb)
    if letter in "vs":
        return _pad(value, verb)
    return _bad(value, verb)


def _integer(value: int, verb: Verb) -> str:
    letter = verb.letter
    if letter == "v":
        if verb.sharp and isinstance(value, Unsigned):
            return _pad(f"0x{int(value):x}", verb)
        letter = "d"
    if letter in ("c", "q", "U"):
        char = chr(value) if 0 <= value < 0x110000 and not 0xD800 <= value < 0xE000 else "\ufffd"
        if letter == "U":
            return _pad(f"U+{int(value):04X}" + (f" '{char}'" if verb.sharp and char.isprintable() else ""), verb)
        return _pad(char if letter == "c" else _quoted_char(char), verb)
    if letter not in _NUMBER_BASES:
        return _bad(value, verb)
    digits = format(abs(int(value)), _NUMBER_BASES[letter])
    if verb.precision is not None:
        digits = "" if verb.precision == 0 and value == 0 else digits.rjust(verb.precision, "0")
    # %O always writes its prefix, the other verbs only with the flag `#`.
    prefix = "0o" if letter == "O" else _PREFIXES.get(letter, "") if verb.sharp else ""
    # With %v the flag `+` asks for names of fields and not for a sign.
    sign = "-" if value < 0 else "+" if verb.plus and verb.letter != "v" else " " if verb.space else ""
    # A precision cancels the padding with zeros.
    return _pad_number(sign + prefix, digits, replace(verb, zero=verb.zero and verb.precision is None))


def _quoted_char(char: str) -> str:
    if char == "'":
        return "'\\''"
    return "'" + (char if char == '"' else gojson.quote(char)[1:-1]) + "'"


def _float(value: float, verb: Verb) -> str:
    letter = verb.letter
    if letter not in "vgGeEfF":
        return _bad(value, verb)
    sign = "-" if str(value).startswith("-") else "+" if verb.plus and letter != "v" else " " if verb.space else ""
    value = abs(value)
    if value != value or value == float("inf"):
        # Infinities get a sign even without the flag; neither is padded with zeros.
        body = "NaN" if value != value else "Inf"
        return _pad_number(sign or "+" * (body == "Inf"), body, replace(verb, zero=False))
    if letter in "vgG" and verb.precision is None:
        body = gojson.percent_v(value)
    elif letter in "vgG":
        body = _general(value, verb.precision or 0)
    else:
        body = format(value, f".{6 if verb.precision is None else verb.precision}{letter}")
    return _pad_number(sign, body.upper() if letter in "GE" else body, verb)


def _general(value: float, precision: int) -> str:
    return format(value, f".{precision or 1}g")


def _pad_number(sign: str, digits: str, verb: Verb) -> str:
    if verb.zero and not verb.minus and verb.width is not None:
        # Zeros stand between the sign and the digits, spaces before the sign.
        return sign + digits.rjust(verb.width - len(sign), "0")
    return _pad(sign + digits, replace(verb, zero=False))
