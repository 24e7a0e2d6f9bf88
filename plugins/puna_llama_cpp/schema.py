"""JSON schemas as llguidance can be trusted with them: what it would follow but loosely is tightened or refused."""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from puna.backend import InvalidRequestError

_NAMED = frozenset(("properties", "patternProperties", "$defs", "definitions", "dependentSchemas"))
_DATA = frozenset(("const", "enum", "default", "examples", "example", "required", "type"))
_OPEN = frozenset(("additionalProperties", "patternProperties", "unevaluatedProperties", "anyOf", "oneOf", "$ref"))
_EXACT = 2**53
"""Up to here every whole number is a float."""
_LARGE = 10**18
_STEP = 1e-6
"""How far from an excluded bound numbers begin."""
_CONTROL = re.compile(r"[\x00-\x07\x0b\x0e-\x1f]")
_CONTROL_ESCAPE = re.compile(r"\\(x[01]|x\{|u00[01]|u\{|c|0|v)")
_PARTS = re.compile(r"\\(?:x[0-9a-fA-F{]{2}|u[0-9a-fA-F{]{4}|.)|\[\^?|.", re.DOTALL)
# llguidance knows no calendar, and lets every minute have a second 60.
_YEAR = "^(000[1-9]|00[1-9]|0[1-9]|[1-9])"
_DAY = (
    "^([0-9]{4}-(0[13-9]|1[0-2])-|[0-9]{4}-02-([01][0-9]|2[0-8])|"
    "([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29)"
)
_SECOND = r"[0-9]{2}:[0-9]{2}:[0-5][0-9](\.[0-9]{1,9})?[Zz+-]"  # some models write digits for ever
_PATTERNS = {
    "date": (_YEAR, _DAY),
    "date-time": (_YEAR, _DAY, f"^[^Tt]*[Tt]{_SECOND}"),
    "time": (f"^{_SECOND}",),
}


def tightened(text: str) -> str:
    """Return a schema that llguidance follows to the letter. InvalidRequestError: a keyword makes that impossible."""
    try:
        schema = json.loads(text)
        if isinstance(schema, dict):
            schema.pop("x-guidance", None)  # llguidance would take options from it, one of them to be lenient
            _tighten(schema)
            if '"allOf"' not in text:  # whose parts must leave room for each other
                _close(schema)
        return json.dumps(schema, allow_nan=False)
    except ValueError as error:
        raise InvalidRequestError(f"JSON schema cannot be read: {error}") from error
    except RecursionError as error:
        raise InvalidRequestError("JSON schema cannot be read: it is nested too deeply") from error


def _tighten(schema: dict[str, Any]) -> None:
    for inner in list(_inner(schema)):
        _tighten(inner)
    if schema.get("uniqueItems") is False:
        del schema["uniqueItems"]  # means nothing, and would be refused
    _check_properties(schema)
    _tighten_bounds(schema)
    for keyword in ("const", "enum"):
        _check_texts(keyword, schema.get(keyword))
    if isinstance(schema.get("pattern"), str):
        schema["pattern"] = _pattern(schema["pattern"])
    if isinstance(schema.get("patternProperties"), dict):
        schema["patternProperties"] = {_pattern(key): value for key, value in schema["patternProperties"].items()}
    form = schema.get("format")
    patterns = _PATTERNS.get(form, ()) if isinstance(form, str) else ()
    if patterns and isinstance(schema.setdefault("allOf", []), list):
        # Only texts have these forms, and llguidance takes a pattern, too, for one of texts alone.
        schema["allOf"] = [*schema["allOf"], *({"pattern": pattern} for pattern in patterns)]


def _close(schema: dict[str, Any]) -> None:
    """Let objects whose properties are listed have no others, unless told: what llama.cpp's own grammars do."""
    for inner in _inner(schema):
        _close(inner)
    if isinstance(schema.get("properties"), dict) and not schema.keys() & _OPEN:
        schema["additionalProperties"] = False


def _inner(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Find the schemas in a schema, also where only a `$ref` would look for them."""
    for keyword, value in schema.items():
        if keyword in _DATA:
            continue
        if keyword in _NAMED and isinstance(value, dict):
            candidates = list(value.values())
        else:
            candidates = value if isinstance(value, list) else [value]
        yield from (candidate for candidate in candidates if isinstance(candidate, dict))


def _check_properties(schema: dict[str, Any]) -> None:
    """Refuse a least number of properties that repeated names could seem to reach: no grammar knows what was said."""
    least, required = schema.get("minProperties"), schema.get("required", [])
    if isinstance(least, int | float) and least >= 2 and isinstance(required, list) and least > len(required):
        raise InvalidRequestError('JSON schema cannot be enforced: "minProperties" beyond those that are required')


def _tighten_bounds(schema: dict[str, Any]) -> None:
    """Narrow whole bounds to what survives as a 64-bit integer and as a float; llguidance takes them for both."""
    for keyword in ("exclusiveMinimum", "exclusiveMaximum", "minimum", "maximum"):
        bound, least = schema.get(keyword), keyword.lower().endswith("minimum")
        if isinstance(bound, bool) or not isinstance(bound, int | float):
            continue
        if abs(bound) < _EXACT:
            if keyword.startswith("exclusive"):  # llguidance lets -3 be less than -3, at times
                del schema[keyword]
                plain, step = keyword.removeprefix("exclusive").lower(), _STEP if abs(bound) < 1e6 else 1e-3
                limits = [round(bound + step if least else bound - step, 6), schema.get(plain)]
                inner: list[float] = [each for each in limits if isinstance(each, int | float)]
                schema[plain] = max(inner) if least else min(inner)
            continue
        if keyword.startswith("exclusive") or (bound > _LARGE if least else bound < -_LARGE):
            raise InvalidRequestError(f'JSON schema cannot be enforced: "{keyword}" of {bound} is too large')
        narrow = float(max(bound, -_LARGE) if least else min(bound, _LARGE))
        if narrow < bound if least else narrow > bound:
            narrow = math.nextafter(narrow, math.inf if least else -math.inf)
        schema[keyword] = int(narrow)


def _check_texts(keyword: str, value: object) -> None:
    """Refuse control characters that JSON writes as numbers: llguidance is told to know no such spelling."""
    if isinstance(value, str) and _CONTROL.search(value):
        raise InvalidRequestError(f'JSON schema cannot be enforced: "{keyword}" with a control character')
    if isinstance(value, list | dict):
        for inner in [*value, *value.values()] if isinstance(value, dict) else value:
            _check_texts(keyword, inner)


def _pattern(pattern: str) -> str:
    """Keep control characters out of a pattern: where a class has them, llguidance lets `"` and `\\` in with them."""
    if _CONTROL.search(pattern):
        raise InvalidRequestError('JSON schema cannot be enforced: "pattern" with a control character')
    written: list[str] = []
    within = negated = False
    for part in _PARTS.findall(pattern):
        if within and part == "]":
            if written[-1].startswith("["):
                raise InvalidRequestError('JSON schema cannot be enforced: "pattern" with an empty class')
            within = negated = False
        elif within and part.startswith("["):
            part = "\\" + part  # ECMAScript has no class in a class
        elif part in ("[", "[^"):
            within, negated = True, part == "[^"
            part += r"\x00-\x1f" * negated
        elif not negated and _CONTROL_ESCAPE.match(part):
            raise InvalidRequestError(f'JSON schema cannot be enforced: "pattern" with the control character {part}')
        written.append(part)
    return "".join(written)
