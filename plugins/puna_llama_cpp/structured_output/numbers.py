"""`multipleOf`, for which llguidance builds an automaton with one state for each remainder.

Multiples of a large number would take millions of states. They are listed instead: all of them if the bounds allow few
enough, otherwise the ones nearest to zero. Twenty thousand listed numbers compile in a tenth of a second. A list allows
less than the schema may, and never more.
"""

from decimal import Decimal, InvalidOperation
from typing import Any, Final

_MAX_AUTOMATON_STATES: Final = 1000
"""Up to this divisor llguidance's automaton is fast, also together with bounds."""
# Numbers in one list.
_MAX_LISTED: Final = 20_000
_MAX_LISTED_VALUE: Final = 10**15
"""The largest number that is listed: a float holds all of its digits."""


def enumerate_multiples(schema: dict[str, Any]) -> None:
    """Replace `multipleOf` and its bounds by a list where the automaton would be large."""
    divisor = _decimal(schema.get("multipleOf"))
    if divisor is None or divisor == 0:
        return
    divisor = abs(divisor)
    # llguidance scales a fraction to an integer, so the automaton's states follow from the digits of the divisor.
    digits = int(divisor.scaleb(-min(int(divisor.as_tuple().exponent), 0)))
    if digits <= _MAX_AUTOMATON_STATES:
        return
    values = _multiples(divisor, schema)
    others = [kind for kind in _types(schema) if kind not in ("integer", "number")]
    if "number" not in _types(schema):
        values = [value for value in values if value == value.to_integral_value()]
    for keyword in ("multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        schema.pop(keyword, None)
    listed = {"enum": [int(value) if value == value.to_integral_value() else float(value) for value in values]}
    # `multipleOf` constrains numbers only, so values of the other types stay allowed.
    choice = {"anyOf": [listed, {"type": others}]} if others else listed
    if not others:
        schema.pop("type", None)
        if not schema.keys() & {"enum", "const", "allOf"}:
            schema |= listed
            return
    if isinstance(schema.setdefault("allOf", []), list):
        schema["allOf"] = [*schema["allOf"], choice]


def _types(schema: dict[str, Any]) -> list[Any]:
    given = schema.get("type", ["null", "boolean", "number", "string", "array", "object"])
    return given if isinstance(given, list) else [given]


def _multiples(divisor: Decimal, schema: dict[str, Any]) -> list[Decimal]:
    """Return the multiples within the bounds in ascending order, or the ones nearest to zero if there are too many."""
    lowest, highest = _bounds(divisor, schema)
    # Any part of the multiples would be correct. Those near zero are the ones that answers are likely to need.
    if highest - lowest >= _MAX_LISTED:
        half = _MAX_LISTED // 2
        lowest, highest = (lowest, lowest + _MAX_LISTED) if lowest > -half else (max(lowest, -half), min(highest, half))
        if highest <= -half:
            lowest = highest - _MAX_LISTED
    return [divisor * factor for factor in range(lowest, highest + 1)]


def _bounds(divisor: Decimal, schema: dict[str, Any]) -> tuple[int, int]:
    """Return the least and the largest factor of the divisor within the bounds."""
    lowest, highest = -int(_MAX_LISTED_VALUE // divisor), int(_MAX_LISTED_VALUE // divisor)
    for keyword in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"):
        bound = _decimal(schema.get(keyword))
        if bound is None:
            continue
        quotient = bound / divisor
        whole = int(quotient.to_integral_value("ROUND_CEILING" if "inimum" in keyword else "ROUND_FLOOR"))
        # An excluded bound that is itself a multiple is left out.
        beyond = keyword.startswith("exclusive") and whole * divisor == bound
        if "inimum" in keyword:
            lowest = max(lowest, whole + beyond)
        else:
            highest = min(highest, whole - beyond)
    return lowest, highest


def _decimal(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        # repr gives the digits that the schema wrote. Decimal(value) would give those of the binary float, such as
        # 0.1000000000000000055.
        return Decimal(repr(value))
    except InvalidOperation:
        return None
