"""The part of a tool's definition that reaches a model.

Ollama decodes tools into structs, which lose unknown fields, and gives those structs to renderers, Go templates and
llama.cpp alike. This module is the one home of these fields: their order, and which of them are omitted when empty.
Where a struct holds any JSON (`$defs`, `items`, `enum`), Go keeps it as maps, which print with sorted keys, and every
number is a float64.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from puna.go import json as gojson
from puna.messages import Tool

JSON: TypeAlias = Any
"""Any value that JSON can say."""


def parsed(text: str) -> JSON:
    """Return JSON text as Go decodes it into an interface, with every number a float. Empty text: None."""
    # Go decodes each number of an interface as float64. The writers of prompts print 1.0 as 1.
    return json.loads(text, parse_int=float) if text else None


def with_sorted_keys(value: JSON) -> JSON:
    """Return a value with the keys of all its objects sorted, as Go prints maps."""
    if isinstance(value, Mapping):
        return {key: with_sorted_keys(value[key]) for key in sorted(value)}
    return [with_sorted_keys(each) for each in value] if isinstance(value, list) else value


def reduced(tool: Tool) -> dict[str, Any]:
    """Return a tool with the fields that Ollama keeps, in its order. The order of properties is the client's."""
    out: dict[str, Any] = {"type": tool.type}
    if tool.items and (items := parsed(tool.items)) is not None:
        out["items"] = with_sorted_keys(items)
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = parameters(parsed(tool.parameters))
    return {**out, "function": function}


def parameters(schema: object) -> dict[str, Any]:
    """Return the kept fields of a function's parameters. `properties` is None where the schema has none."""
    given = schema if isinstance(schema, Mapping) else {}
    # `type` and `properties` have no omitempty in Go.
    kept: dict[str, Any] = {"type": _text(given.get("type"))}
    for key in ("$defs", "items"):
        if given.get(key) is not None:
            kept[key] = with_sorted_keys(given[key])
    if given.get("required"):
        kept["required"] = [_text(name) for name in given["required"]]
    kept["properties"] = _properties(given.get("properties"))
    return kept


def _properties(given: object) -> dict[str, Any] | None:
    if not isinstance(given, Mapping):
        return None
    return {name: property_(schema) for name, schema in given.items()}


def property_(schema: object) -> dict[str, Any]:
    """Return the kept fields of one property."""
    given = schema if isinstance(schema, Mapping) else {}
    kept: dict[str, Any] = {}
    if given.get("anyOf"):
        kept["anyOf"] = [property_(one) for one in given["anyOf"]]
    if types := types_of(given):
        kept["type"] = types[0] if len(types) == 1 else types
    if given.get("items") is not None:
        kept["items"] = with_sorted_keys(given["items"])
    if given.get("description"):
        kept["description"] = _text(given["description"])
    if given.get("enum"):
        kept["enum"] = with_sorted_keys(given["enum"])
    # Go's omitempty drops an absent pointer, but not an empty map behind a pointer.
    if (properties := _properties(given.get("properties"))) is not None:
        kept["properties"] = properties
    if given.get("required"):
        kept["required"] = [_text(name) for name in given["required"]]
    return kept


def properties_of(name: str, tools: Sequence[Tool]) -> Mapping[str, Any]:
    """Return the properties of the parameters of the tool that is called `name`; none if it is not among the tools."""
    tool = next((tool for tool in tools if tool.name == name), None)
    return (parameters(parsed(tool.parameters))["properties"] if tool is not None else None) or {}


def as_printed(value: JSON) -> JSON:
    """Return a reduced value with its numbers as Go prints them: an integer where no fraction is printed."""
    return json.loads(gojson.dumps(value))


def types_of(schema: Mapping[str, Any]) -> list[str]:
    """Return the types of a property: none, one or several."""
    given = schema.get("type")
    if isinstance(given, str):
        return [given] if given else []
    return [_text(one) for one in given] if isinstance(given, list) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
