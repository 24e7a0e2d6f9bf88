"""Restates JSON schemas so that llguidance enforces them to the letter, or refuses them.

llguidance ignores some keywords, follows some loosely, and knows some only under another name. A schema goes through
these steps before it is compiled:

1. `_tighten` visits every subschema. It replaces formats, multiples, patterns and bounds by equivalents that llguidance
   follows exactly.
2. `_rewrite_keywords` expresses keywords that llguidance does not know by keywords that it knows (`objects`).
3. `_close_objects` forbids unlisted properties in objects that list some, as llama.cpp's own grammars do.

Invariant: the restated schema may allow less than the original, and never more. A keyword for which that cannot be
achieved is refused with an error that names it.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Final

from puna.backend import InvalidRequestError
from puna_llama_cpp.structured_output.formats import replace_format
from puna_llama_cpp.structured_output.numbers import enumerate_multiples
from puna_llama_cpp.structured_output.objects import (
    Resolve,
    list_required_properties,
    make_resolver,
    rewrite_one_of,
    rewrite_property_names,
    rewrite_unique_items,
)
from puna_llama_cpp.structured_output.patterns import rewrite_pattern

# Keywords whose values are objects of schemas.
_SCHEMA_MAPS = frozenset(("properties", "patternProperties", "$defs", "definitions", "dependentSchemas"))
# Keywords whose values are data, in which nothing is a schema.
_DATA_KEYWORDS = frozenset(("const", "enum", "default", "examples", "example", "required", "type"))
# Keywords whose texts never become a part of an answer.
_ANNOTATION_KEYWORDS = frozenset(
    ("title", "description", "$comment", "examples", "default", "example", "pattern", "patternProperties")
)
# Keywords beside which an object with listed properties stays open.
_OPENING_KEYWORDS = frozenset(
    ("additionalProperties", "patternProperties", "unevaluatedProperties", "anyOf", "oneOf", "$ref")
)
_MAX_EXACT_INTEGER = 2**53
"""Up to this number every integer is exact as a float."""
_MAX_BOUND = 10**18
"""The largest bound that llguidance takes, as a 64-bit integer."""
_FALSE_SCHEMAS: Final[tuple[object, ...]] = ({"not": {}}, {"not": True})
_MAX_LENGTH = 100_000
"""Characters or items. llguidance counts up to the largest number, and schemas write huge ones for "any"."""
_DRAFT = re.compile(r"https?://json-schema\.org/(draft-0[467]|draft/2019-09|draft/2020-12)/schema#?")
_EXCLUSIVE_STEP = 1e-6
"""The distance between an excluded bound and the first number that is allowed."""
# Without the characters for which JSON has a short escape (backspace, tab, line feed, form feed, carriage return).
_CONTROL = re.compile(r"[\x00-\x07\x0b\x0e-\x1f\x7f]")
# Dates and times as patterns: llguidance knows no calendar, and allows second 60 in every minute.
_YEAR = "^(000[1-9]|00[1-9]|0[1-9]|[1-9])"
_DAY = (
    "^([0-9]{4}-(0[13-9]|1[0-2])-|[0-9]{4}-02-([01][0-9]|2[0-8])|"
    "([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29)"
)
_SECOND = r"[0-9]{2}:[0-9]{2}:[0-5][0-9](\.[0-9]{1,9})?[Zz+-]"  # limited, since some models write digits for ever
_PATTERNS = {
    "date": (_YEAR, _DAY),
    "date-time": (_YEAR, _DAY, f"^[^Tt]*[Tt]{_SECOND}"),
    "time": (f"^{_SECOND}",),
}


def tighten_schema(text: str) -> str:
    """Return a schema that llguidance follows to the letter.

    Raises InvalidRequestError if a keyword makes that impossible.
    """
    try:
        schema = json.loads(text)
        if isinstance(schema, dict):
            _tighten(schema)
            _rewrite_keywords(schema, make_resolver(schema))
            # The parts of an allOf each list some properties and must leave room for each other's.
            if '"allOf"' not in text:
                _close_objects(schema)
        return json.dumps(schema, allow_nan=False)
    except ValueError as error:
        raise InvalidRequestError(f"JSON schema cannot be read: {error}") from error
    except RecursionError as error:
        raise InvalidRequestError("JSON schema cannot be read: it is nested too deeply") from error


def needs_unicode_escapes(schema: object) -> bool:
    r"""Return whether an answer must contain control characters, which JSON can only write as \u escapes.

    Raises InvalidRequestError if it must and objects are open: with \u allowed, a model could spell a listed name in
    numbers.
    """
    found, open_objects, waiting = False, False, [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            found = found or bool(_CONTROL.search(value))
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            data = {key: each for key, each in value.items() if key not in _ANNOTATION_KEYWORDS}
            open_objects = open_objects or ("properties" in value and value.get("additionalProperties") is not False)
            waiting += [*data, *data.values()]
    if found and open_objects:
        raise InvalidRequestError(
            'JSON schema cannot be enforced: "const" with a control character beside open objects'
        )
    return found


def _tighten(schema: dict[str, Any]) -> None:
    for keyword in [
        key for key, value in schema.items() if value is None and key not in _DATA_KEYWORDS - {"required", "type"}
    ]:
        del schema[keyword]  # A null says nothing, and llguidance refuses it.
    # llguidance would take options from it, among them one to ignore what it does not know
    schema.pop("x-guidance", None)
    if not _DRAFT.fullmatch(str(schema.get("$schema", ""))):
        schema.pop("$schema", None)  # llguidance would try to fetch another draft's schema
    for inner in list(_subschemas(schema)):
        _tighten(inner)
    _modernize(schema)
    enumerate_multiples(schema)
    replace_format(schema)
    _cap_lengths(schema)
    _refuse_min_properties(schema)
    _tighten_bounds(schema)
    if isinstance(schema.get("pattern"), str):
        *more, schema["pattern"] = rewrite_pattern(schema["pattern"])
        if more and isinstance(schema.setdefault("allOf", []), list):
            schema["allOf"] = [*schema["allOf"], *({"pattern": each} for each in more)]
    if isinstance(schema.get("patternProperties"), dict):
        schema["patternProperties"] = {
            _single_pattern(key): value for key, value in schema["patternProperties"].items()
        }
    format_name = schema.get("format")
    patterns = _PATTERNS.get(format_name, ()) if isinstance(format_name, str) else ()
    if patterns and isinstance(schema.setdefault("allOf", []), list):
        # Only texts have these formats, and llguidance applies a pattern, too, to texts only.
        schema["allOf"] = [*schema["allOf"], *({"pattern": pattern} for pattern in patterns)]


def _close_objects(schema: dict[str, Any]) -> None:
    """Forbid unlisted properties in objects that list some, unless the schema says otherwise."""
    for inner in _subschemas(schema):
        _close_objects(inner)
    if isinstance(schema.get("patternProperties"), dict) and "unevaluatedProperties" not in schema:
        schema.setdefault("additionalProperties", False)
    if isinstance(schema.get("properties"), dict) and not schema.keys() & _OPENING_KEYWORDS:
        list_required_properties(schema)
        schema["additionalProperties"] = False


def _subschemas(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the direct subschemas of a schema, also in places that only a `$ref` reaches."""
    for keyword, value in schema.items():
        if keyword in _DATA_KEYWORDS:
            continue
        if keyword in _SCHEMA_MAPS and isinstance(value, dict):
            candidates = list(value.values())
        else:
            candidates = value if isinstance(value, list) else [value]
        yield from (candidate for candidate in candidates if isinstance(candidate, dict))


def _refuse_min_properties(schema: dict[str, Any]) -> None:
    """Refuse a minProperties beyond the required ones.

    Repeated names could seem to reach it: no grammar remembers names.
    """
    least, required = schema.get("minProperties"), schema.get("required", [])
    # A grammar can demand one property without remembering names.
    if isinstance(least, int | float) and least >= 2 and isinstance(required, list) and least > len(required):
        raise InvalidRequestError('JSON schema cannot be enforced: "minProperties" beyond those that are required')


def _tighten_bounds(schema: dict[str, Any]) -> None:
    """Narrow bounds to numbers that are exact as a 64-bit integer and as a float, since llguidance uses both."""
    for keyword in ("exclusiveMinimum", "exclusiveMaximum", "minimum", "maximum"):
        bound, is_minimum = schema.get(keyword), keyword.lower().endswith("minimum")
        if isinstance(bound, bool) or not isinstance(bound, int | float):
            continue
        if abs(bound) < _MAX_EXACT_INTEGER:
            # llguidance lets -3 be less than -3 at times, so the bound becomes an inclusive one
            if keyword.startswith("exclusive"):
                del schema[keyword]
                plain, step = keyword.removeprefix("exclusive").lower(), _EXCLUSIVE_STEP if abs(bound) < 1e6 else 1e-3
                limits = [round(bound + step if is_minimum else bound - step, 6), schema.get(plain)]
                inner: list[float] = [each for each in limits if isinstance(each, int | float)]
                schema[plain] = max(inner) if is_minimum else min(inner)
            continue
        if keyword.startswith("exclusive") or (bound > _MAX_BOUND if is_minimum else bound < -_MAX_BOUND):
            raise InvalidRequestError(f'JSON schema cannot be enforced: "{keyword}" of {bound} is too large')
        # The bound must survive as a float too, and rounding must not widen it.
        narrow = float(max(bound, -_MAX_BOUND) if is_minimum else min(bound, _MAX_BOUND))
        if narrow < bound if is_minimum else narrow > bound:
            narrow = math.nextafter(narrow, math.inf if is_minimum else -math.inf)
        schema[keyword] = int(narrow)


def _modernize(schema: dict[str, Any]) -> None:
    """Replace keywords of older drafts, and schemas that forbid everything, by forms that llguidance knows."""
    # In draft 4 these keywords are booleans, which say how the plain bound beside them is meant.
    for keyword, plain in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(schema.get(keyword), bool):
            excluded = schema.pop(keyword)
            if excluded and plain in schema:
                schema[keyword] = schema.pop(plain)
    for keyword in ("properties", "patternProperties"):
        listed = schema.get(keyword)
        if isinstance(listed, dict):
            schema[keyword] = {name: False if each in _FALSE_SCHEMAS else each for name, each in listed.items()}


def _cap_lengths(schema: dict[str, Any]) -> None:
    """Lower the upper limits to which llguidance would have to count. A lower limit allows less, which is permitted."""
    for keyword, minimum_keyword in (
        ("maxLength", "minLength"),
        ("maxItems", "minItems"),
        ("maxProperties", "minProperties"),
    ):
        for each in (keyword, minimum_keyword):
            value = schema.get(each)
            # Some writers print a count of 5 as 5.0.
            if isinstance(value, float) and value == int(value):
                schema[each] = int(value)
        maximum, minimum = schema.get(keyword), schema.get(minimum_keyword, 0)
        if isinstance(maximum, int) and maximum > _MAX_LENGTH and isinstance(minimum, int):
            schema[keyword] = max(_MAX_LENGTH, minimum)


def _rewrite_keywords(schema: dict[str, Any], resolve: Resolve) -> None:
    """Express keywords that llguidance does not know by keywords that it knows, in all subschemas."""
    for inner in list(_subschemas(schema)):
        _rewrite_keywords(inner, resolve)
    rewrite_property_names(schema, resolve)
    rewrite_unique_items(schema, resolve)
    rewrite_one_of(schema, resolve)


def _single_pattern(pattern: str) -> str:
    """Return the restated pattern of property names.

    Raises InvalidRequestError if it takes two patterns, as look-ahead does.
    """
    found = rewrite_pattern(pattern)
    if len(found) > 1:
        raise InvalidRequestError('JSON schema cannot be enforced: "patternProperties" with look-ahead')
    return found[0]
