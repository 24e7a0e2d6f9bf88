"""Reading JSON that strangers wrote: requests, and the files of pulled models.

Python's own reader fails in several ways on such text: RecursionError where it is nested deeply, LookupError for some
bytes that are no text, and values that are no JSON (NaN) or cannot be written again (1e999 becomes an infinity, an
escaped half of a character is no text). Here each of them is a ValueError whose text says what is wrong, or is repaired
as Go's decoder repairs it: what is no UTF-8 becomes U+FFFD.

The depth is bounded because everything that handles such a value recurses into it. Python's stack has room for a
thousand calls, and a level takes up to three.
"""

import json
import math
import re
from collections.abc import Callable
from typing import Any, Final, TypeAlias

JSON: TypeAlias = Any
"""Any value that JSON can say."""

DEEPEST: Final = 200
"""Levels of objects and arrays that a text may have. Schemas and arguments of honest clients have a dozen."""
LARGEST_INT: Final = (1 << 63) - 1
_LONGEST_INT: Final = 308
"""Characters of a whole number: a float64 can have as many."""

_TOKEN: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[{]+|[\]}]+', re.DOTALL)
_ESCAPE: Final = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\(u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.", re.DOTALL
)
"""A pair of halves, a lone half, any other escape."""


def check_depth(text: str) -> None:
    """Raise ValueError if a text has more than DEEPEST levels. It need not be JSON."""
    if text.count("[") + text.count("{") <= DEEPEST:
        return
    level = 0
    for match in _TOKEN.finditer(text):
        first = text[match.start()]
        if first in "[{":
            level += match.end() - match.start()
            if level > DEEPEST:
                raise ValueError(f"it is nested deeper than {DEEPEST} levels")
        elif first != '"':
            level -= match.end() - match.start()


def loads(text: str | bytes, *, integer: Callable[[str], float] | None = None) -> JSON:
    """Read JSON text. `integer` makes a value of the digits of a whole number; None: int.

    Raises ValueError for what is no JSON, what is nested too deeply, and numbers beyond the range of a float64.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    check_depth(text)
    kind = integer or int

    def counted(digits: str) -> float:
        if len(digits) > _LONGEST_INT:
            raise ValueError(f"a number has more than {_LONGEST_INT} digits")
        return kind(digits)

    return json.loads(text, parse_int=counted, parse_float=_finite, parse_constant=_refused)


def repaired(text: str) -> str:
    """Replace escapes of lone halves of characters in JSON text by that of U+FFFD, as Go's decoder reads them.

    Requests hold JSON as text. It is repaired where it arrives, so that no later reader of it makes such a half.
    """
    if "\\ud" not in text and "\\uD" not in text:
        return text
    return _ESCAPE.sub(lambda match: r"\ufffd" if match[1] else match[0], text)


def int64(value: object) -> int:
    """Return a value if it is a whole number that is not negative and fits into 64 bits with a sign; otherwise 0."""
    return value if type(value) is int and 0 <= value <= LARGEST_INT else 0


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits[:40]} is out of range")
    return value


def _refused(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
