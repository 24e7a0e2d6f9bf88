"""Reads numbers and lists of arguments in calls that are not JSON."""

import re
from collections.abc import Iterator
from typing import Final

from puna.go.template import literals

_INTEGER: Final = re.compile(r"[+-]?[0-9]+")


def number(text: str) -> int | float | None:
    """Return a number as Go reads it: an integer if it fits 64 bits, else a finite float; None for other texts."""
    if _INTEGER.fullmatch(text) and -(2**63) <= (whole := int(text)) < 2**63:
        return whole
    # Python's float reads digits of every script, Go's only ASCII.
    return literals.floating(text) if text.isascii() else None


def at_commas(text: str, *, quotes: str = "'\"", escapes: bool = True) -> Iterator[str]:
    """Yield the texts between the commas that stand outside brackets and quotes, with their white space.

    `escapes`: a backslash within quotes takes the next character with it.
    """
    depth, quote, begin, at = 0, "", 0, 0
    while at < len(text):
        char = text[at]
        if quote:
            at += escapes and char == "\\"
            quote = "" if char == quote else quote
        elif char in quotes:
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            # The depth may fall below zero in a malformed text; then no comma counts until it is zero again.
            depth -= 1
        elif char == "," and not depth:
            yield text[begin:at]
            begin = at + 1
        at += 1
    yield text[begin:]
