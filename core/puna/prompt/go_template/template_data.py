"""Gives messages, tools and thinking to Go templates as Ollama's Go types, by name and field.

The names matter: a template can print a type, and Go's error messages quote it.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final

from puna.go import json as gojson
from puna.go.template.formatting import text
from puna.go.template.values import (
    ANY_SLICE,
    STRINGS,
    Boxed,
    ContainerType,
    Field,
    Map,
    Pointer,
    Slice,
    Struct,
    StructType,
    to_json,
)
from puna.messages import Message, Think, Tool, ToolCall
from puna.prompt import tool_schema


def _type_text(value: Slice) -> str:
    if len(value.items) < 2:
        return "".join(value.items)
    return text(list(value.items))


def _type_json(value: Slice) -> str:
    return gojson.dumps(value.items[0] if len(value.items) == 1 else list(value.items))


_TYPE_SCRIPT: Final = {
    "string": "string",
    "number": "number",
    # TypeScript has one type of numbers.
    "integer": "number",
    "boolean": "boolean",
    "array": "any[]",
    "object": "Record<string, any>",
    "null": "null",
}


def _type_script(value: Struct) -> str:
    if any_of := value.values["AnyOf"].items:
        return " | ".join(map(_type_script, any_of))
    types = value.values["Type"].items
    return " | ".join(_TYPE_SCRIPT.get(one, "any") for one in types) or "any"


_JSON: Final = {"String": to_json}
# Go prints a nil map as "map[]" or JSON null, but Ollama's method writes an empty object.
_ARGUMENTS: Final = ContainerType(
    "template.templateArgs", boxed=True, methods={"String": lambda v: "{}" if v.nil else to_json(v)}
)
_CALL_FUNCTION: Final = StructType(
    "template.templateToolCallFunction", (Field("Index"), Field("Name"), Field("Arguments"))
)
_CALL: Final = StructType("template.templateToolCall", (Field("ID"), Field("Function")))
_CALLS: Final = ContainerType("[]template.templateToolCall")
_MESSAGE: Final = StructType(
    "template.templateMessage",
    tuple(map(Field, ("Role", "Content", "Thinking", "Images", "ToolCalls", "ToolName", "ToolCallID"))),
)
_MESSAGES: Final = ContainerType("[]*template.templateMessage")
_IMAGE: Final = ContainerType(
    "api.ImageData", methods={"MarshalJSON": lambda v: gojson.string(base64.b64encode(v.items).decode())}
)
_IMAGES: Final = ContainerType("[]api.ImageData")

_PROPERTY_TYPE: Final = ContainerType("api.PropertyType", methods={"String": _type_text, "MarshalJSON": _type_json})
_PROPERTY: Final = StructType(
    "api.ToolProperty",
    (
        Field("AnyOf", "anyOf", omit_empty=True),
        Field("Type", "type", omit_empty=True),
        Field("Items", "items", omit_empty=True),
        Field("Description", "description", omit_empty=True),
        Field("Enum", "enum", omit_empty=True),
        Field("Properties", "properties", omit_empty=True),
        Field("Required", "required", omit_empty=True),
    ),
    methods={"ToTypeScriptType": _type_script},
)
_PROPERTY_LIST: Final = ContainerType("[]api.ToolProperty")
# Nested properties stand behind a pointer to an unexported field in Go, so that only their JSON is visible.
_HIDDEN: Final = StructType("orderedmap.Map", (Field("json"),))
_NESTED: Final = StructType(
    "api.ToolPropertiesMap",
    (Field("om"),),
    methods={"MarshalJSON": lambda value: value.values["om"].target.values["json"]},
)
_PROPERTIES: Final = ContainerType(
    "template.templateProperties",
    methods={"String": lambda v: "{}" if v.nil else to_json(v)},
    zero=lambda: _property({}),
)
_PARAMETERS: Final = StructType(
    "template.templateToolFunctionParameters",
    (
        Field("Type", "type"),
        Field("Defs", "$defs", omit_empty=True),
        Field("Items", "items", omit_empty=True),
        Field("Required", "required", omit_empty=True),
        Field("Properties", "properties"),
    ),
)
_FUNCTION: Final = StructType(
    "template.templateToolFunction",
    (Field("Name", "name"), Field("Description", "description"), Field("Parameters", "parameters")),
)
_TOOL: Final = StructType(
    "template.templateTool",
    (Field("Type", "type"), Field("Items", "items", omit_empty=True), Field("Function", "function")),
    methods=_JSON,
)
_TOOLS: Final = ContainerType("template.templateTools", methods=_JSON)


def messages(given: Sequence[Message]) -> Slice:
    """Return messages as `.Messages` holds them."""
    # An empty slice is nil in Go here, which error texts and %#v show.
    return Slice(_MESSAGES, [Pointer(_message(message), _MESSAGE.name) for message in given] or None)


def _message(message: Message) -> Struct:
    return Struct(
        _MESSAGE,
        message.role,
        message.content,
        message.thinking,
        Slice(_IMAGES, [Slice(_IMAGE, image) for image in message.media] or None),
        Slice(_CALLS, [_call(call) for call in message.tool_calls] or None),
        message.tool_name,
        message.tool_call_id,
    )


def _call(call: ToolCall) -> Struct:
    arguments = Map(_ARGUMENTS, tool_schema.parsed(call.arguments))
    return Struct(_CALL, call.id, Struct(_CALL_FUNCTION, call.index, call.name, arguments))


def tools(given: Sequence[Tool]) -> Slice:
    """Return tools as `.Tools` holds them."""
    return Slice(_TOOLS, [_tool(tool) for tool in given] or None)


def _tool(tool: Tool) -> Struct:
    kept = tool_schema.parameters(tool_schema.parsed(tool.parameters))
    properties = kept["properties"]
    schema = Struct(
        _PARAMETERS,
        kept["type"],
        _boxed(kept.get("$defs")),
        _boxed(kept.get("items")),
        Slice(STRINGS, kept.get("required")),
        Map(_PROPERTIES, properties if properties is None else {n: _property(p) for n, p in properties.items()}),
    )
    items = tool_schema.parsed(tool.items)
    return Struct(_TOOL, tool.type, _boxed(items), Struct(_FUNCTION, tool.name, tool.description, schema))


def _boxed(value: object) -> Boxed | None:
    # Any JSON is an interface in Go, which error texts mention.
    return None if value is None else Boxed(value)


def _property(kept: Mapping[str, Any]) -> Struct:
    any_of = kept.get("anyOf")
    types = tool_schema.types_of(kept)
    return Struct(
        _PROPERTY,
        Slice(_PROPERTY_LIST, any_of and [_property(one) for one in any_of]),
        Slice(_PROPERTY_TYPE, types or None),
        _boxed(kept.get("items")),
        kept.get("description", ""),
        Slice(ANY_SLICE, kept.get("enum")),
        _nested(kept.get("properties")),
        Slice(STRINGS, kept.get("required")),
    )


def _nested(properties: Mapping[str, Any] | None) -> Pointer:
    if properties is None:
        return Pointer(None, _NESTED.name)
    members = ",".join(f"{gojson.string(name)}:{to_json(_property(kept))}" for name, kept in properties.items())
    # The JSON is computed here: templates cannot reach the members themselves.
    held = Struct(_HIDDEN, "{" + members + "}")
    return Pointer(Struct(_NESTED, Pointer(held, _HIDDEN.name)), _NESTED.name)


def thinking(think: Think | None) -> dict[str, Any]:
    """Return the variables about thinking. `ThinkLevel` is "medium" where only thinking was asked for."""
    on = think is not None and think.on
    level = (think.level or "medium") if think is not None and on else ""
    return {"Think": on, "ThinkLevel": level, "IsThinkSet": think is not None}
