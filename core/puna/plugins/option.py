"""The options that a backend declares in its manifest: JSON Schema with a scope, and the check of a value.

The manifest's table [options] is a JSON Schema (draft 2020-12) of an object, with two keywords of Puna's own. `x-scope`
of a property says who may set the option. `x-secret` of a text, which is a property or lies within its tables and
lists, says that the value is the name of an entry in the configuration's table [secrets].

The schema's keywords are checked here when the manifest is read, so that a wrong or misspelt one is an error that names
it. References are no keywords here: no schema makes the server open a file or an address. Values are checked by the
library jsonschema. It takes a second to import on a slow machine, so the first value imports it and not the manifest.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from puna.plugins.table import ManifestError, Table, shown

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator

SCOPES: Final = ("operator", "model", "request")
"""Who may set an option. Each scope includes those before it."""
NAME: Final = r"[A-Za-z_][A-Za-z0-9_.-]{0,63}"
NAME_FORM: Final = "at most 64 characters out of letters, digits, _, . and -, and begin with a letter or _"
MAX_DEPTH: Final = 8
"""Levels of schemas within schemas."""
EXACT: Final = 1 << 53
"""Integers below this are exact as floats."""

TYPES: Final = {
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "string": "a text",
    "array": "a list",
    "object": "a table",
    "null": "null",
}
"""The types of JSON Schema, and their names in errors."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option that a backend declares."""

    name: str
    schema: Mapping[str, Any]
    scope: str = "operator"

    def allows(self, scope: str) -> bool:
        """Return whether an "operator", a "model" or a "request" may set it."""
        return SCOPES.index(scope) <= SCOPES.index(self.scope)

    def check(self, value: object) -> object:
        """Return the value in the option's type. Raises ValueError, whose text begins with "must".

        The first call imports jsonschema, which may take a second.
        """
        # JSON does not distinguish 1 from 1.0. A larger integer would lose digits as a float.
        if self.schema.get("type") == "number" and type(value) is int and abs(value) < EXACT:
            value = float(value)
        errors = list(self._validator.iter_errors(value))
        if errors:
            # A wrong type says more than the bounds or choices that it breaks as well. NaN and infinity are not finite
            # numbers, but for them the bounds say more.
            unbounded = isinstance(value, float) and not math.isfinite(value)
            raise ValueError(_explain(min(errors, key=lambda each: (each.validator == "type") is unbounded)))
        return value

    @cached_property
    def has_secrets(self) -> bool:
        """Whether a text in its value is the name of a secret."""
        return _has_secrets(self.schema)

    def with_secrets(self, value: object, resolve: Callable[[str], str]) -> object:
        """Return a checked value with each name of a secret replaced by what `resolve` returns for it."""
        return _resolved(self.schema, value, resolve) if self.has_secrets else value

    @cached_property
    def _validator(self) -> "Validator":
        return _validator_class()(self.schema)


def read_options(table: Table) -> tuple[dict[str, Option], tuple[str, ...]]:
    """Return the declared options by name, and the names of those that must be set. Raises ManifestError."""
    if table.text("type", "object") != "object":
        raise ManifestError('options.type: must be "object"')
    if table.take("additionalProperties") not in (None, False):
        raise ManifestError("options.additionalProperties: must be false; each option is declared")
    for ignored in ("$schema", "description", "title"):
        table.text(ignored, "")
    declared = {name: _option(name, schema) for name, schema in table.table("properties").items()}
    required = table.texts("required")
    for name in required:
        if name not in declared:
            raise ManifestError(f"options.required: {shown(name)!r} is not declared")
    table.end()
    return declared, required


def _option(name: str, schema: object) -> Option:
    where = f"options.properties.{shown(name)}"
    Table({"name": name}, where).text("name", pattern=NAME, form=NAME_FORM)
    table = Table(schema, where)
    scope = table.text("x-scope", "operator", pattern="|".join(SCOPES), form=f"one of {', '.join(SCOPES)}")
    own = {keyword: value for keyword, value in table.items() if keyword != "x-scope"}
    check_schema(own, where)
    if scope == "request" and _has_secrets(own):
        raise ManifestError(f"{where}: a secret is set by the operator or a model, never by a request")
    if scope == "request" and not _bounded(own):
        # Requests come from untrusted sources, so they must never set a path, an address, a program or a library.
        raise ManifestError(
            f"{where}: must be bounded, since a request may set it: a boolean, a number with both minimum and maximum, "
            f"or a text with an enum"
        )
    return Option(name=name, schema=own, scope=scope)


def _bounded(schema: Mapping[str, Any]) -> bool:
    if schema.get("type") == "boolean":
        return True
    if schema.get("type") == "string":
        return "enum" in schema
    # The difference is infinite if one bound is missing, and NaN is not finite either.
    span = schema.get("maximum", math.inf) - schema.get("minimum", -math.inf)
    return schema.get("type") in ("integer", "number") and math.isfinite(span)


# ---- the keywords of a schema ----------------------------------------------------------------------------------------


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_type(value: object) -> bool:
    names = value if isinstance(value, list) else [value]
    return bool(names) and all(isinstance(each, str) and each in TYPES for each in names)


def _is_pattern(value: object) -> bool:
    import re

    try:
        return isinstance(value, str) and bool(re.compile(value))
    except (re.error, RecursionError, OverflowError):
        return False


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


_VALUES: Final[Mapping[str, tuple[Callable[[object], bool], str]]] = {
    "type": (_is_type, f"one of {', '.join(TYPES)}, or a list of them"),
    "enum": (lambda value: isinstance(value, list) and bool(value), "a list of values"),
    "const": (lambda _: True, ""),
    "default": (lambda _: True, ""),
    "examples": (lambda value: isinstance(value, list), "a list of values"),
    "title": (_is_text, "a text"),
    "description": (_is_text, "a text"),
    "x-secret": (lambda value: isinstance(value, bool), "true or false"),
    "deprecated": (lambda value: isinstance(value, bool), "true or false"),
    "minimum": (_is_number, "a finite number"),
    "maximum": (_is_number, "a finite number"),
    "exclusiveMinimum": (_is_number, "a finite number"),
    "exclusiveMaximum": (_is_number, "a finite number"),
    "multipleOf": (lambda value: _is_number(value) and float(str(value)) > 0, "a number above 0"),
    "minLength": (_is_count, "a count"),
    "maxLength": (_is_count, "a count"),
    "minItems": (_is_count, "a count"),
    "maxItems": (_is_count, "a count"),
    "uniqueItems": (lambda value: isinstance(value, bool), "true or false"),
    "minProperties": (_is_count, "a count"),
    "maxProperties": (_is_count, "a count"),
    "pattern": (_is_pattern, "a regular expression"),
    "required": (_is_names, "a list of names"),
}
"""Keywords with a plain value: the check of the value, and what the value must be."""
_SCHEMA: Final = ("items", "not", "additionalProperties")
"""Keywords whose value is a schema, or true or false."""
_SCHEMA_LISTS: Final = ("anyOf", "oneOf", "allOf", "prefixItems")
_SCHEMA_TABLES: Final = ("properties",)


def check_schema(schema: object, where: str, depth: int = 0) -> None:
    """Check that a schema has known keywords with sound values only. Raises ManifestError, which names the keyword."""
    if depth > MAX_DEPTH:
        raise ManifestError(f"{where}: has more than {MAX_DEPTH} levels")
    if isinstance(schema, Mapping) and schema.get("x-secret") is True and schema.get("type") != "string":
        raise ManifestError(f'{where}: a secret has the type "string"')
    for keyword, value in Table(schema, where).items():
        here = f"{where}.{shown(keyword)}"
        if keyword in _VALUES:
            sound, words = _VALUES[keyword]
            if not sound(value):
                raise ManifestError(f"{here}: must be {words}")
        elif keyword in _SCHEMA:
            if not isinstance(value, bool):
                check_schema(value, here, depth + 1)
        elif keyword in _SCHEMA_LISTS:
            if not isinstance(value, list) or not value:
                raise ManifestError(f"{here}: must be a list of schemas")
            for number, each in enumerate(value):
                check_schema(each, f"{here}[{number}]", depth + 1)
                if _has_secrets(each):
                    raise ManifestError(
                        f"{here}[{number}]: a secret must lie in properties, additionalProperties or items"
                    )
        elif keyword in _SCHEMA_TABLES:
            for name, each in Table(value, here).items():
                check_schema(each, f"{here}.{shown(name)}", depth + 1)
        else:
            known = ", ".join(sorted([*_VALUES, *_SCHEMA, *_SCHEMA_LISTS, *_SCHEMA_TABLES]))
            raise ManifestError(f"{here}: is not a keyword that options may use (known: {known})")


# ---- secrets ---------------------------------------------------------------------------------------------------------


def _inner_schemas(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the schemas of the members and elements of a value."""
    inner = [*schema.get("properties", {}).values(), schema.get("additionalProperties"), schema.get("items")]
    return [each for each in inner if isinstance(each, Mapping)]


def _has_secrets(schema: Mapping[str, Any]) -> bool:
    return schema.get("x-secret") is True or any(map(_has_secrets, _inner_schemas(schema)))


def _resolved(schema: object, value: object, resolve: Callable[[str], str]) -> object:
    if not isinstance(schema, Mapping):
        return value
    if schema.get("x-secret") is True and isinstance(value, str):
        return resolve(value)
    if isinstance(value, Mapping):
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        return {key: _resolved(known.get(key, others), each, resolve) for key, each in value.items()}
    if isinstance(value, list):
        return [_resolved(schema.get("items"), each, resolve) for each in value]
    return value


# ---- the check of a value --------------------------------------------------------------------------------------------


def _validator_class() -> "type[Validator]":
    """Return a validator with stricter numbers than JSON Schema has: 2.0 is no integer, and NaN is in no range."""
    from jsonschema import Draft202012Validator, validators
    from jsonschema.exceptions import ValidationError

    def in_range(kept: Callable[[Any, Any], bool]) -> Any:  # noqa: ANN401 (the library's own type of a keyword)
        def check(_validator: "Validator", bound: Any, value: object, _schema: object) -> Any:  # noqa: ANN401
            if isinstance(value, int | float) and not isinstance(value, bool) and not kept(value, bound):
                yield ValidationError("out of range")

        return check

    types = Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"integer": lambda _, value: type(value) is int, "number": lambda _, value: _is_json_number(value)}
    )
    ranges = {"minimum": in_range(lambda a, b: a >= b), "maximum": in_range(lambda a, b: a <= b)}
    extended: type[Validator] = validators.extend(Draft202012Validator, ranges, type_checker=types)
    return extended


def _is_json_number(value: object) -> bool:
    return (type(value) is float and math.isfinite(value)) or (type(value) is int and abs(value) < EXACT)


def _explain(error: "ValidationError") -> str:
    """Return what a value must be. The text never repeats the value, which may be a secret."""
    keyword, wanted, schema = str(error.validator), error.validator_value, error.schema
    place = "".join(f"[{shown(str(each))!r}]" for each in error.absolute_path)
    prefix = f"{place} " if place else ""
    bounds = schema if isinstance(schema, Mapping) else {}
    match keyword:
        case "type":
            names = wanted if isinstance(wanted, list) else [wanted]
            return f"{prefix}must be {' or '.join(TYPES[each] for each in names)}"
        case "minimum" | "maximum":
            low, high = bounds.get("minimum", -math.inf), bounds.get("maximum", math.inf)
            return f"{prefix}must be between {_plain(low)} and {_plain(high)}"
        case "enum":
            return f"{prefix}must be one of {', '.join(map(repr, wanted))}"
        case _:
            return f"{prefix}must fit the keyword {keyword!r} of its schema in the backend's manifest"


def _plain(bound: float) -> str:
    return str(int(bound)) if math.isfinite(bound) and bound == int(bound) else str(bound)
