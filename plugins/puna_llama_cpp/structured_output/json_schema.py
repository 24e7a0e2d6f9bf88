"""JSON schemas as llguidance can be trusted with them: what it would follow but loosely is tightened or refused."""

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

_SCHEMA_MAPS = frozenset(("properties", "patternProperties", "$defs", "definitions", "dependentSchemas"))
_DATA_KEYWORDS = frozenset(("const", "enum", "default", "examples", "example", "required", "type"))
_ANNOTATION_KEYWORDS = frozenset(
    ("title", "description", "$comment", "examples", "default", "example", "pattern", "patternProperties")
)
_OPENING_KEYWORDS = frozenset(
    ("additionalProperties", "patternProperties", "unevaluatedProperties", "anyOf", "oneOf", "$ref")
)
_MAX_EXACT_INTEGER = 2**53
"""Up to here every whole number is a float."""
_MAX_BOUND = 10**18
_FALSE_SCHEMAS: Final[tuple[object, ...]] = ({"not": {}}, {"not": True})
_MAX_LENGTH = 100_000
"""Characters or items. llguidance counts up to the largest number, which a schema uses for "any"."""
_DRAFT = re.compile(r"https?://json-schema\.org/(draft-0[467]|draft/2019-09|draft/2020-12)/schema#?")
_EXCLUSIVE_STEP = 1e-6
"""How far from an excluded bound numbers begin."""
_CONTROL = re.compile(r"[\x00-\x07\x0b\x0e-\x1f\x7f]")
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


def tighten_schema(text: str) -> str:
    """Return a schema that llguidance follows to the letter. InvalidRequestError: a keyword makes that impossible."""
    try:
        schema = json.loads(text)
        if isinstance(schema, dict):
            _tighten(schema)
            _rewrite_keywords(schema, make_resolver(schema))
            if '"allOf"' not in text:  # whose parts must leave room for each other
                _close_objects(schema)
        return json.dumps(schema, allow_nan=False)
    except ValueError as error:
        raise InvalidRequestError(f"JSON schema cannot be read: {error}") from error
    except RecursionError as error:
        raise InvalidRequestError("JSON schema cannot be read: it is nested too deeply") from error


def needs_unicode_escapes(schema: object) -> bool:
    """Say whether an answer must hold control characters, which JSON writes as numbers: llguidance must be told so.

    InvalidRequestError: it must, and may have names of its own too, which then could be spelled by numbers.
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
        del schema[keyword]  # says nothing, and would be refused
    schema.pop("x-guidance", None)  # llguidance would take options from it, one of them to be lenient
    if not _DRAFT.fullmatch(str(schema.get("$schema", ""))):
        schema.pop("$schema", None)  # llguidance would try to fetch it
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
        # Only texts have these forms, and llguidance takes a pattern, too, for one of texts alone.
        schema["allOf"] = [*schema["allOf"], *({"pattern": pattern} for pattern in patterns)]


def _close_objects(schema: dict[str, Any]) -> None:
    """Let objects whose properties are listed have no others, unless told: what llama.cpp's own grammars do."""
    for inner in _subschemas(schema):
        _close_objects(inner)
    if isinstance(schema.get("patternProperties"), dict) and "unevaluatedProperties" not in schema:
        schema.setdefault("additionalProperties", False)
    if isinstance(schema.get("properties"), dict) and not schema.keys() & _OPENING_KEYWORDS:
        list_required_properties(schema)
        schema["additionalProperties"] = False


def _subschemas(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Find the schemas in a schema, also where only a `$ref` would look for them."""
    for keyword, value in schema.items():
        if keyword in _DATA_KEYWORDS:
            continue
        if keyword in _SCHEMA_MAPS and isinstance(value, dict):
            candidates = list(value.values())
        else:
            candidates = value if isinstance(value, list) else [value]
        yield from (candidate for candidate in candidates if isinstance(candidate, dict))


def _refuse_min_properties(schema: dict[str, Any]) -> None:
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
        if abs(bound) < _MAX_EXACT_INTEGER:
            if keyword.startswith("exclusive"):  # llguidance lets -3 be less than -3, at times
                del schema[keyword]
                plain, step = keyword.removeprefix("exclusive").lower(), _EXCLUSIVE_STEP if abs(bound) < 1e6 else 1e-3
                limits = [round(bound + step if least else bound - step, 6), schema.get(plain)]
                inner: list[float] = [each for each in limits if isinstance(each, int | float)]
                schema[plain] = max(inner) if least else min(inner)
            continue
        if keyword.startswith("exclusive") or (bound > _MAX_BOUND if least else bound < -_MAX_BOUND):
            raise InvalidRequestError(f'JSON schema cannot be enforced: "{keyword}" of {bound} is too large')
        narrow = float(max(bound, -_MAX_BOUND) if least else min(bound, _MAX_BOUND))
        if narrow < bound if least else narrow > bound:
            narrow = math.nextafter(narrow, math.inf if least else -math.inf)
        schema[keyword] = int(narrow)


def _modernize(schema: dict[str, Any]) -> None:
    """Put what only older drafts write, or what llguidance knows by another word, in the words that it knows."""
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
    """Lower what llguidance would have to count to; a text that is shorter is allowed too."""
    for keyword, least in (("maxLength", "minLength"), ("maxItems", "minItems"), ("maxProperties", "minProperties")):
        for each in (keyword, least):
            value = schema.get(each)
            if isinstance(value, float) and value == int(value):
                schema[each] = int(value)
        most, fewest = schema.get(keyword), schema.get(least, 0)
        if isinstance(most, int) and most > _MAX_LENGTH and isinstance(fewest, int):
            schema[keyword] = max(_MAX_LENGTH, fewest)


def _rewrite_keywords(schema: dict[str, Any], resolve: Resolve) -> None:
    """Put keywords that llguidance does not know in those that it knows."""
    for inner in list(_subschemas(schema)):
        _rewrite_keywords(inner, resolve)
    rewrite_property_names(schema, resolve)
    rewrite_unique_items(schema, resolve)
    rewrite_one_of(schema, resolve)


def _single_pattern(pattern: str) -> str:
    """Return the expression for names; one that takes two has no place where names stand."""
    found = rewrite_pattern(pattern)
    if len(found) > 1:
        raise InvalidRequestError('JSON schema cannot be enforced: "patternProperties" with look-ahead')
    return found[0]
