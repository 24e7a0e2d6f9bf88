"""The estimate of prompt tokens in the first event of a stream of /v1/messages."""

from typing import Any

from puna.go import json as gojson
from puna.go.json_scanner import Document, Node
from puna_rest.bodies.anthropic import BLOCK
from puna_rest.gobody.decoder import AbortError, unmarshal
from puna_rest.gobody.kinds import plain
from puna_rest.translate.messages import go_arguments
from puna_rest.translate.options import Body


def estimate(document: Document, body: Body) -> int:
    """Return a quarter of the bytes of all texts, at least 1 if there are messages. The rule is Ollama's."""
    total = _system(document, body["system"])
    for message in body["messages"] or ():
        total += len(message["role"].encode()) + sum(_block(document, each) for each in message["content"] or ())
    for tool in body["tools"] or ():
        schema = document.raw(tool["input_schema"]) if tool["input_schema"] is not None else ""
        total += len((tool["name"] + tool["description"] + schema).encode())
    return total // 4 or int(bool(body["messages"]) or body["system"] is not None)


def _system(document: Document, node: Node | None) -> int:
    if node is None:
        return 0
    if node.kind == "string":
        return len(node.value.encode())
    if node.kind != "array":
        return len(gojson.dumps(plain(document, node), sort_keys=True).encode())
    total = 0
    for each in node.value:
        try:
            block = unmarshal(document, each, BLOCK)
        except AbortError:
            continue
        assert isinstance(block, dict) or block is BLOCK.zero
        total += _block(document, {**BLOCK.zero, **block})
    return total


def _block(document: Document, block: Body) -> int:
    total = len(((block["text"] or "") + (block["thinking"] or "")).encode())
    if block["type"] in ("tool_use", "tool_result"):
        total += len(gojson.dumps(_written(document, block)).encode())
    return total


def _written(document: Document, block: Body) -> dict[str, Any]:
    """Return a block as Go encodes it."""
    out: dict[str, Any] = {"type": block["type"]}
    if block["text"] is not None:
        out["text"] = block["text"]
    if block["citations"]:
        out["citations"] = [
            {name: value for name, value in each.items() if value or name in ("type", "url", "title")}
            for each in block["citations"]
        ]
    if block["source"] is not None:
        out["source"] = {
            name: value for name, value in block["source"].items() if name != "content" and (value or name == "type")
        }
    for name in ("id", "name"):
        if block[name]:
            out[name] = block[name]
    if block["input"] is not None:
        out["input"] = gojson.Raw(go_arguments(block["input"]))
    if block["tool_use_id"]:
        out["tool_use_id"] = block["tool_use_id"]
    if block["content"] is not None:
        out["content"] = gojson.Raw(gojson.dumps(plain(document, block["content"]), sort_keys=True))
    if block["is_error"]:
        out["is_error"] = True
    if block["thinking"] is not None:
        out["thinking"] = block["thinking"]
    if block["signature"]:
        out["signature"] = block["signature"]
    return out
