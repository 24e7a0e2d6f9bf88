"""Types with an UnmarshalJSON in Ollama: durations, thinking levels, tools and their arguments."""

import math
from typing import Any, Final

from puna.go import json as gojson
from puna.go.duration import LARGEST, parse_duration
from puna.go.json_scanner import Document, Node
from puna_rest.gobody.decoder import AbortError, Decoder, Type, unmarshal
from puna_rest.gobody.kinds import (
    Anything,
    Bool,
    Bytes,
    Custom,
    Float,
    Inner,
    Int,
    Later,
    Pointer,
    Slice,
    String,
    Struct,
)

NO_OBJECT: Final = "Value looks like object, but can't find closing '}' symbol"
LEVELS: Final = frozenset({"high", "medium", "low", "max"})
_GO_NAMES: Final = {"bool": "bool", "object": "map[string]interface {}", "array": "[]interface {}"}


def keep_alive(document: Document, node: Node) -> int:
    """Decode `keep_alive` to nanoseconds. A negative value keeps the model loaded without an end."""
    if node.kind == "number":
        value = unmarshal(document, node, Float())
        assert isinstance(value, float)
        if not math.isfinite(value * 1e9):
            raise AbortError(f"keep_alive is out of range: {value}")
        nanoseconds = int(value * 1e9)
        return -1 if nanoseconds < 0 or nanoseconds > LARGEST else nanoseconds
    if node.kind == "string":
        if node.value == "-1":  # guides recommend "-1", which Ollama refuses
            return -1
        try:
            return max(parse_duration(node.value), -1)
        except ValueError as error:
            raise AbortError(str(error)) from None
    unmarshal(document, node, Anything())
    raise AbortError(f"Unsupported type: '{_GO_NAMES[node.kind]}'")


def think(_document: Document, node: Node) -> bool | str:
    """Decode `think`: a boolean or a level."""
    if node.kind == "bool":
        return bool(node.value)
    if node.kind == "string":
        if node.value not in LEVELS:
            raise AbortError(
                f"invalid think value: {gojson.quote(node.value)} "
                '(must be "high", "medium", "low", "max", true, or false)'
            )
        return str(node.value)
    raise AbortError('think must be a boolean or string ("high", "medium", "low", "max", true, or false)')


def arguments(document: Document, node: Node) -> str:
    """Decode the arguments of a tool call to the raw text of a JSON object."""
    if node.kind == "null":
        return "{}"
    if node.kind != "object":
        raise AbortError(NO_OBJECT)
    for _, value in node.value:
        unmarshal(document, value, Anything())
    return document.raw(node)


def _property_type(document: Document, node: Node) -> object:
    if node.kind in ("string", "null"):
        return [node.value or ""]
    return unmarshal(document, node, Slice(String()))


def _properties(document: Document, node: Node) -> object:
    if node.kind != "object":
        raise AbortError(NO_OBJECT)
    return {key: unmarshal(document, value, _PROPERTY) for key, value in node.value}


_PROPERTY: Final = Later("api.ToolProperty", lambda: _PROPERTY_STRUCT)
_PROPERTIES: Final = Pointer(Custom("api.ToolPropertiesMap", _properties))
_PROPERTY_STRUCT: Final[Struct] = Struct(
    "api.ToolProperty",
    {
        "anyOf": Slice(_PROPERTY),
        "type": Custom("api.PropertyType", _property_type),
        "items": Anything(),
        "description": String(),
        "enum": Slice(Anything()),
        "properties": _PROPERTIES,
        "required": Slice(String()),
    },
)
PARAMETERS: Final = Struct(
    "api.ToolFunctionParameters",
    {
        "type": String(),
        "$defs": Anything(),
        "items": Anything(),
        "required": Slice(String()),
        "properties": _PROPERTIES,
    },
)


class _WithText(Type):
    """A type that keeps its raw text: {"text": ..., "value": ...}. The text is empty when absent or null."""

    def __init__(self, kind: Struct) -> None:
        self.go = kind.go
        self.zero = {"text": "", "value": kind.zero}
        self._kind = kind

    def decode(self, decoder: Decoder, node: Node, old: Any) -> object:  # noqa: ANN401 - the zero value has the type of `value`
        """Decode with the type, and keep the raw text."""
        value = self._kind.decode(decoder, node, old["value"])
        return {"text": decoder.document.raw(node) if node.kind == "object" else old["text"], "value": value}


TOOL: Final = Struct(
    "api.Tool",
    {
        "type": String(),
        "items": Anything(),
        "function": Struct(
            "api.ToolFunction",
            {"name": String(), "description": String(), "parameters": _WithText(PARAMETERS)},
        ),
    },
)
ARGUMENTS: Final = Custom("api.ToolCallFunctionArguments", arguments, zero="{}")
KEEP_ALIVE: Final = Pointer(Custom("api.Duration", keep_alive))
THINK: Final = Pointer(Custom("api.ThinkValue", think))
IMAGES: Final = Slice(Bytes("api.ImageData"))
OPTIONAL_BOOL: Final = Pointer(Bool())
MESSAGE: Final = Inner(
    Struct(
        "api.Alias",
        {
            "role": String(),
            "content": String(),
            "thinking": String(),
            "images": IMAGES,
            "tool_calls": Slice(
                Struct(
                    "api.ToolCall",
                    {
                        "id": String(),
                        "function": Struct(
                            "api.ToolCallFunction", {"index": Int(), "name": String(), "arguments": ARGUMENTS}
                        ),
                    },
                )
            ),
            "tool_name": String(),
            "tool_call_id": String(),
        },
    ),
    go="api.Message",
)
