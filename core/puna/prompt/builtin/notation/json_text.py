"""Reads JSON that a model wrote, and reports errors in Go's words.

Python's decoder reads the value. Only a text that it refuses goes through puna.go.json_scanner, whose message counts.
"""

import json
import math
from collections.abc import Callable
from typing import Any, Final, NoReturn

from puna.go import json_scanner
from puna.go.json import replace_lone_surrogates

NO_OBJECT: Final = "Value looks like object, but can't find closing '}' symbol"
"""Ollama's error for arguments that are no object."""


def read(text: str) -> object:
    """Return the value, with every number a float. Raises ValueError with Go's text."""
    too_large: list[str] = []

    def number(written: str) -> float:
        value = float(written)
        # The error is raised at the end: Go reports a syntax error anywhere in the text before a number that is too
        # large.
        if math.isinf(value):
            too_large.append(written)
        return value

    value = decoded(text, number)
    if too_large:
        raise ValueError(f"json: cannot unmarshal number {too_large[0]} into Go value of type float64")
    return value


def read_arguments(text: str) -> dict[str, Any]:
    """Return the arguments of a call; null means no arguments. Raises ValueError with Ollama's text."""
    value = read(text)
    if not isinstance(value, dict | None):
        raise ValueError(NO_OBJECT)
    return value or {}


def decoded(
    text: str, number: Callable[[str], object], members: Callable[[list[tuple[str, Any]]], object] | None = None
) -> object:
    """Return the value. `number` makes each number of its text, `members` each object of its pairs.

    Raises ValueError with Go's text.
    """
    try:
        return json.loads(text, parse_int=number, parse_float=number, parse_constant=_refuse, object_pairs_hook=members)
    except RecursionError:
        # Go allows more levels than Python's stack has room for, and refuses with the same words.
        raise ValueError("exceeded max depth") from None
    except ValueError:
        raise ValueError(_complaint(text)) from None


def _refuse(constant: str) -> NoReturn:
    """Refuse NaN and infinities, which Python's decoder would take."""
    raise ValueError(constant)


def _complaint(text: str) -> str:
    try:
        json_scanner.parse_whole(replace_lone_surrogates(text))
    except json_scanner.BodyError as error:
        return str(error)
    return "invalid JSON"
