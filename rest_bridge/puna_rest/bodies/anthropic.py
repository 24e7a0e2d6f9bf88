"""Bodies of /v1/messages."""

from typing import Any, Final

from puna.go.json_scanner import Document, Node
from puna_rest.bodies.custom import arguments
from puna_rest.gobody.decoder import AbortError, unmarshal
from puna_rest.gobody.kinds import Anything, Bool, Custom, Float, Int, Pointer, Slice, String, Struct, anonymous

BLOCK: Final = Struct(
    "anthropic.ContentBlock",
    {
        "type": String(),
        "text": Pointer(String()),
        "citations": Slice(
            Struct(
                "anthropic.Citation",
                {
                    "type": String(),
                    "url": String(),
                    "title": String(),
                    "encrypted_index": String(),
                    "cited_text": String(),
                },
            )
        ),
        "source": Pointer(
            Struct(
                "anthropic.ImageSource",
                {
                    "type": String(),
                    "media_type": String(),
                    "data": String(),
                    "url": String(),
                    "content": Anything(),
                },
            )
        ),
        "title": Anything(),
        "context": Anything(),
        "id": String(),
        "name": String(),
        "input": Custom("api.ToolCallFunctionArguments", arguments),
        "tool_use_id": String(),
        "content": Anything(),
        "is_error": Bool(),
        "thinking": Pointer(String()),
        "signature": String(),
    },
)
_BLOCKS: Final = Slice(BLOCK)
_MESSAGE: Final = Struct(
    anonymous(role="string", content="json.RawMessage"),
    {"role": String(), "content": Custom("json.RawMessage", lambda _, node: node)},
)


def _message(document: Document, node: Node) -> dict[str, Any]:
    """Decode a message to {"role": str, "content": list of blocks}. A text is one block."""
    raw = unmarshal(document, node, _MESSAGE)
    assert isinstance(raw, dict) or raw is _MESSAGE.zero
    fields = dict(raw)
    content = fields["content"]
    if content is None:
        raise AbortError("unexpected end of JSON input")
    if content.kind in ("string", "null"):
        blocks: object = [{**BLOCK.zero, "type": "text", "text": content.value or ""}]
    else:
        blocks = unmarshal(document, content, _BLOCKS)
    return {"role": fields["role"], "content": blocks}


MESSAGES: Final = Struct(
    "anthropic.MessagesRequest",
    {
        "model": String(),
        "max_tokens": Int(),
        "messages": Slice(Custom("anthropic.MessageParam", _message)),
        "system": Anything(),
        "stream": Bool(),
        "temperature": Pointer(Float()),
        "top_p": Pointer(Float()),
        "top_k": Pointer(Int()),
        "stop_sequences": Slice(String()),
        "tools": Slice(
            Struct(
                "anthropic.Tool",
                {
                    "type": String(),
                    "name": String(),
                    "description": String(),
                    "input_schema": Custom("json.RawMessage", lambda _, node: node),
                    "max_uses": Int(),
                },
            )
        ),
        "tool_choice": Pointer(
            Struct(
                "anthropic.ToolChoice",
                {"type": String(), "name": String(), "disable_parallel_tool_use": Bool()},
            )
        ),
        "thinking": Pointer(Struct("anthropic.ThinkingConfig", {"type": String(), "budget_tokens": Int()})),
        "metadata": Pointer(Struct("anthropic.Metadata", {"user_id": String()})),
        "output_config": Pointer(Struct("anthropic.OutputConfig", {"effort": String()})),
    },
)
