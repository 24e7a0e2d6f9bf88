"""Comparison in Go's templates: values of one basic kind with each other, and any value with nil."""

from typing import Final, Literal

from puna.go.template.formatting import Verb, formatted, text
from puna.go.template.values import MISSING, Map, Pointer, Slice, Struct, elements, entries, type_name, unbox

Kind = Literal["bool", "int", "float", "complex", "string", ""]

_BAD: Final = "invalid type for comparison"
_AS_STRING: Final = Verb("s")


class ComparisonError(Exception):
    """Two values are not comparable. The text is Go's."""


def equal(first: object, *others: object) -> bool:
    """Return whether the first value equals any of the others. Raises ComparisonError."""
    first = unbox(first)
    if not others:
        raise ComparisonError("missing argument for comparison")
    kind = _kind(first)
    for boxed in others:
        other = unbox(boxed)
        if _kind(other) != kind:
            # Go compares an invalid value with every type and finds the two unequal.
            if first is not MISSING and other is not MISSING:
                raise ComparisonError(f"incompatible types for comparison: {type_name(first)} and {type_name(other)}")
        elif (first == other) if kind else _same(first, other):
            return True
    return False


def less(first: object, second: object) -> bool:
    """Return whether the first value is less than the second. Both are strings, or numbers of one kind."""
    first, second = unbox(first), unbox(second)
    kind, other = _kind(first), _kind(second)
    if not kind or not other:
        raise ComparisonError(_BAD)
    if kind != other:
        raise ComparisonError(f"incompatible types for comparison: {type_name(first)} and {type_name(second)}")
    if isinstance(first, str) and isinstance(second, str):
        # Go compares bytes. Parts of cut characters are lone surrogates here, which sort differently as characters.
        return first.encode("utf-8", "surrogateescape") < second.encode("utf-8", "surrogateescape")
    if kind in ("bool", "complex") or not isinstance(first, int | float) or not isinstance(second, int | float):
        raise ComparisonError(_BAD)
    return first < second


def less_or_equal(first: object, second: object) -> bool:
    """Return whether the first value is less than or equal to the second."""
    return less(first, second) or equal(first, second)


def _kind(value: object) -> Kind:
    match value:
        case str():
            return "string"
        # bool comes before int, of which it is a subclass in Python.
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float"
        case complex():
            return "complex"
    return ""


def _is_nil(value: object) -> bool:
    if value is MISSING:
        return True
    if isinstance(value, Pointer):
        return value.target is None
    return isinstance(value, Slice | Map) and value.nil


def _go_kind(value: object) -> str:
    if isinstance(value, Pointer | Struct):
        return type(value).__name__
    return "slice" if elements(value) is not None else "map" if entries(value) is not None else "invalid"


def _same(first: object, second: object) -> bool:
    kinds = {_go_kind(first), _go_kind(second)}
    # Go checks nil only after it has found the two kinds comparable, so the order of these tests decides the error
    # text.
    if len(kinds) > 1 and "invalid" not in kinds:
        left = f"{formatted(first, _AS_STRING)}: {type_name(first)}"
        raise ComparisonError(f"non-comparable types {left}, {type_name(second)}: {text(second)}")
    if _is_nil(first) or _is_nil(second):
        return _is_nil(first) and _is_nil(second)
    if not isinstance(second, Pointer):
        raise ComparisonError(f"non-comparable type {formatted(second, _AS_STRING)}: {type_name(second)}")
    return isinstance(first, Pointer) and first.target is second.target
