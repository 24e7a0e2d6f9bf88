"""Tools as templates see them: decoded into the reference's fixed structures, so that fields those lack are gone.

Fields come in the structures' order, the members of `properties` in the order in which they were sent, and JSON that is
kept as it is (`items`, `$defs`, values of `enum`) with its keys sorted.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from puna.errors import ToolsRefusedError
from puna.go import json as gojson
from puna.messages import Tool
from puna.prompt.value import Value

FUNCTION: Final = "function"


def tool_objects(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Return tools as a template takes them.

    Raises ToolsRefusedError for a type but "function", ValueError for parameters that are no JSON.
    """
    if any(tool.type != FUNCTION for tool in tools):
        raise ToolsRefusedError(_refusal(tools))
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": parameters(json.loads(tool.parameters) if tool.parameters else {}),
            },
        }
        for tool in tools
    ]


def _refusal(tools: Sequence[Tool]) -> str:
    """Say what llama.cpp says: the first tool that it does not know, and all tools as they were sent to it."""
    sent = [_sent(tool) for tool in tools]
    first = next(each for each in sent if each["type"] != FUNCTION)
    compact = json.dumps(first, ensure_ascii=False, separators=(",", ":"))
    pretty = json.dumps(sent, ensure_ascii=False, indent=2)
    return f"Failed to parse tools: Unsupported tool type: {compact}; tools = {pretty}"


def _sent(tool: Tool) -> dict[str, Any]:
    function = {
        "name": tool.name,
        **({"description": tool.description} if tool.description else {}),
        "parameters": parameters(json.loads(tool.parameters) if tool.parameters else {}),
    }
    return {"type": tool.type, **({"items": _free(json.loads(tool.items))} if tool.items else {}), "function": function}


def parameters(schema: Value) -> dict[str, Any]:
    """Return what is kept of a schema of parameters."""
    schema = schema if isinstance(schema, Mapping) else {}
    out: dict[str, Any] = {"type": schema.get("type") or ""}
    for key in ("$defs", "items"):
        if schema.get(key) is not None:
            out[key] = _free(schema[key])
    if schema.get("required"):
        out["required"] = list(schema["required"])
    properties = schema.get("properties")
    out["properties"] = None if properties is None else {key: _property(each) for key, each in properties.items()}
    return out


def _property(schema: Value) -> dict[str, Any]:
    schema = schema if isinstance(schema, Mapping) else {}
    out: dict[str, Any] = {}
    if schema.get("anyOf"):
        out["anyOf"] = [_property(each) for each in schema["anyOf"]]
    kind = schema.get("type")
    if kind:
        out["type"] = kind[0] if isinstance(kind, list) and len(kind) == 1 else kind
    if schema.get("items") is not None:
        out["items"] = _free(schema["items"])
    if schema.get("description"):
        out["description"] = schema["description"]
    if schema.get("enum"):
        out["enum"] = [_free(each) for each in schema["enum"]]
    if schema.get("properties"):
        out["properties"] = {key: _property(each) for key, each in schema["properties"].items()}
    if schema.get("required"):
        out["required"] = list(schema["required"])
    return out


def _free(value: Value) -> Value:
    return json.loads(gojson.dumps(_as_floats(value), sort_keys=True))


def _as_floats(value: Value) -> Value:
    if isinstance(value, bool) or not isinstance(value, int | list | Mapping):
        return value
    if isinstance(value, int):
        return float(value)
    if isinstance(value, list):
        return [_as_floats(each) for each in value]
    return {key: _as_floats(each) for key, each in value.items()}
