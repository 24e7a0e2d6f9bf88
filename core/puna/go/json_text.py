"""A JSON reader for untrusted text: requests, and the files of pulled models.

Python's reader has several gaps: deep nesting raises RecursionError, some byte sequences raise LookupError, NaN is
accepted, 1e999 becomes an infinity, and an escaped lone surrogate becomes a string that cannot be encoded. This reader
raises ValueError with a reason, or repairs the text like Go's decoder: invalid UTF-8 becomes U+FFFD.

The depth is bounded because all code that handles such values is recursive. Python's stack holds a thousand calls, and
one level of JSON takes up to three.
"""

import json
import math
import re
from collections.abc import Callable
from typing import Any, Final, TypeAlias

JSON: TypeAlias = Any
"""Any JSON value."""

DEEPEST: Final = 200
"""Most levels of nested objects and arrays. Schemas and arguments normally have a dozen."""
LARGEST_INT: Final = (1 << 63) - 1
_LONGEST_INT: Final = 308
"""Most characters of an integer, as many as the largest float64 has digits before the point."""

_TOKEN: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[{]+|[\]}]+', re.DOTALL)
_ESCAPE: Final = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\(u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.", re.DOTALL
)
"""A surrogate pair, a lone surrogate (group 1), or any other escape."""


def check_depth(text: str) -> None:
    """Raise ValueError if a text has more than DEEPEST levels. The text need not be valid JSON."""
    # Two fast counts settle nearly all texts: fewer brackets than levels cannot be too deep, even inside strings.
    if text.count("[") + text.count("{") <= DEEPEST:
        return
    level = 0
    for match in _TOKEN.finditer(text):
        # One match covers a run of brackets, so that a million of them do not cost a million steps.
        first = text[match.start()]
        if first in "[{":
            level += match.end() - match.start()
            if level > DEEPEST:
                raise ValueError(f"it is nested deeper than {DEEPEST} levels")
        elif first != '"':
            level -= match.end() - match.start()


def loads(text: str | bytes, *, integer: Callable[[str], float] | None = None) -> JSON:
    """Decode JSON. `integer` converts the digits of integers; the default is int.

    ValueError: the text is not JSON, is nested too deeply, or has a number beyond the range of float64.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    check_depth(text)
    kind = integer or int

    def counted(digits: str) -> float:
        # Converting decimal digits takes quadratic time. Python's own bound would raise, too, but only after 4,300
        # digits.
        if len(digits) > _LONGEST_INT:
            raise ValueError(f"a number has more than {_LONGEST_INT} digits")
        return kind(digits)

    return json.loads(text, parse_int=counted, parse_float=_finite, parse_constant=_refused)


def repaired(text: str) -> str:
    """Replace escaped lone surrogates in JSON text by the escape of U+FFFD, like Go's decoder.

    JSON fields of requests are repaired where they arrive, so that no later reader creates a lone surrogate.
    """
    # Every escaped surrogate begins with one of these two texts.
    if "\\ud" not in text and "\\uD" not in text:
        return text
    return _ESCAPE.sub(lambda match: r"\ufffd" if match[1] else match[0], text)


def int64(value: object) -> int:
    """Return a value that is an integer from 0 to 2**63 - 1, and 0 for any other."""
    # type() and not isinstance: True is no number in JSON.
    return value if type(value) is int and 0 <= value <= LARGEST_INT else 0


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits[:40]} is out of range")
    return value


def _refused(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
