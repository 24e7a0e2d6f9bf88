"""Bodies of /v1/responses."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from puna.go import json as gojson
from puna.go.json_scanner import Document, Node
from puna_rest.gobody.decoder import AbortError, unmarshal
from puna_rest.gobody.kinds import (
    AnyMap,
    Bool,
    Custom,
    Float,
    Int,
    Later,
    Pointer,
    Raw,
    Slice,
    String,
    Struct,
    anonymous,
)

Item = TypeVar("Item")
_RAW: Final = "json.RawMessage"
_TYPE: Final = Struct(anonymous(type="string"), {"type": String()})
_TYPE_AND_ROLE: Final = Struct(anonymous(type="string", role="string"), {"type": String(), "role": String()})
_TEXT: Final = {"type": String(), "text": String()}
_CONTENT: Final = {
    "input_text": Struct("openai.ResponsesTextContent", _TEXT),
    "output_text": Struct("openai.ResponsesOutputTextContent", _TEXT),
    "input_image": Struct(
        "openai.ResponsesImageContent",
        {"type": String(), "detail": String(), "file_id": String(), "image_url": String()},
    ),
    "input_file": Struct(
        "openai.ResponsesFileContent",
        {"type": String(), "file_data": String(), "file_id": String(), "file_url": String(), "filename": String()},
    ),
}
_MESSAGE: Final = Struct(
    anonymous(type="string", role="string", content=_RAW),
    {"type": String(), "role": String(), "content": Custom(_RAW, lambda _, node: node)},
)
_CALL: Final = Struct(
    "openai.ResponsesFunctionCall",
    {"id": String(), "type": String(), "call_id": String(), "name": String(), "arguments": String()},
)
_OUTPUT: Final = Struct(
    anonymous(type="string", call_id="string", output=_RAW).replace("Call_id", "CallID"),
    {"type": String(), "call_id": String(), "output": Custom(_RAW, lambda _, node: node)},
)
_SUMMARY: Final = Struct("openai.ResponsesReasoningSummary", _TEXT)
_REASONING: Final = Struct(
    "openai.ResponsesReasoningInput",
    {"id": String(), "type": String(), "summary": Slice(_SUMMARY), "encrypted_content": String()},
)
_REFERENCE: Final = Struct(anonymous(type="string", id="string"), {"type": String(), "id": String()})
_SEARCH: Final = Struct(
    "openai.ResponsesWebSearchCall",
    {
        "id": String(),
        "type": String(),
        "status": String(),
        "action": Pointer(Struct("openai.ResponsesWebSearchAction", {"type": String(), "query": String()})),
    },
)


def _input(document: Document, node: Node) -> dict[str, Any]:
    """Decode `input` to {"text": str, "items": list of dicts with a "type"}."""
    if node.kind in ("string", "null"):
        return {"text": node.value or "", "items": []}
    return {"text": "", "items": _each(document, node, "input", _item)}


def _each(document: Document, node: Node, name: str, read: Callable[[Document, Node], Item]) -> list[Item]:
    """Decode the elements of an array. Errors name the index, as Ollama's do."""
    if node.kind != "array":
        text = f"json: cannot unmarshal {_value(document, node)} into Go value of type []json.RawMessage"
        raise AbortError(f"{name} must be a string or array: {text}")
    out = []
    for index, each in enumerate(node.value):
        try:
            out.append(read(document, each))
        except AbortError as error:
            raise AbortError(f"{name}[{index}]: {error}") from None
    return out


def _value(_document: Document, node: Node) -> str:
    return node.kind


def _item(document: Document, node: Node) -> dict[str, Any]:
    head = _fields(document, node, _TYPE_AND_ROLE)
    kind = head["type"] or ("message" if head["role"] else "")
    if kind == "message":
        item = _fields(document, node, _MESSAGE)
        item["content"] = _contents(document, item["content"], "content")
    elif kind == "function_call":
        item = _fields(document, node, _CALL)
    elif kind == "function_call_output":
        item = _fields(document, node, _OUTPUT)
        item["output"] = _contents(document, item["output"], "output")
    elif kind == "reasoning":
        item = _fields(document, node, _REASONING)
    elif kind == "item_reference":
        item = _fields(document, node, _REFERENCE)
    elif kind == "web_search_call":
        item = _fields(document, node, _SEARCH)
    elif kind:
        raise AbortError(f"unknown input item type: {gojson.quote(kind)}")
    else:
        raise AbortError("input item missing required 'type' field")
    return {**item, "type": kind}


def _contents(document: Document, node: Node | None, name: str) -> list[dict[str, Any]]:
    if node is None:
        return []
    if node.kind in ("string", "null"):
        return [{"type": "input_text", "text": node.value or ""}]
    return _each(document, node, name, _content)


def _content(document: Document, node: Node) -> dict[str, Any]:
    kind = _fields(document, node, _TYPE)["type"]
    if kind not in _CONTENT:
        raise AbortError(f"unknown content type: {kind}")
    return _fields(document, node, _CONTENT[kind])


def _fields(document: Document, node: Node, kind: Struct) -> dict[str, Any]:
    fields = unmarshal(document, node, kind)
    assert isinstance(fields, dict) or fields is kind.zero
    return dict(kind.zero) | dict(fields)


TOOL: Final[Struct] = Struct(
    "openai.ResponsesTool",
    {
        "type": String(),
        "name": String(),
        "description": Pointer(String()),
        "strict": Pointer(Bool()),
        "parameters": AnyMap(),
        "tools": Slice(Later("openai.ResponsesTool", lambda: TOOL)),
    },
)
RESPONSES: Final = Struct(
    "openai.ResponsesRequest",
    {
        "model": String(),
        "background": Bool(),
        "conversation": Raw(),
        "include": Slice(String()),
        "input": Custom("openai.ResponsesInput", _input, zero={"text": "", "items": []}),
        "instructions": String(),
        "max_output_tokens": Pointer(Int()),
        "reasoning": Struct(
            "openai.ResponsesReasoning", {"effort": String(), "generate_summary": String(), "summary": String()}
        ),
        "temperature": Pointer(Float()),
        "text": Pointer(
            Struct(
                "openai.ResponsesText",
                {
                    "format": Pointer(
                        Struct(
                            "openai.ResponsesTextFormat",
                            {"type": String(), "name": String(), "schema": Raw(), "strict": Pointer(Bool())},
                        )
                    )
                },
            )
        ),
        "top_p": Pointer(Float()),
        "truncation": Pointer(String()),
        "tools": Slice(TOOL),
        "store": Raw(),
        "stream": Pointer(Bool()),
        "tool_choice": Raw(),
    },
)
