"""The response object of /v1/responses and its output items."""

import secrets
import time
from typing import Any

from puna.go import json as gojson
from puna.go.json_scanner import Document, parse_whole
from puna_rest.gobody.kinds import plain
from puna_rest.translate.openai.chat_answer import tool_calls
from puna_rest.translate.options import Body
from puna_rest.translate.parts import Part


def new_number() -> int:
    """Return 80 random bits for an id. A later request may name an item by its id alone, so no id can be guessed."""
    return secrets.randbelow(10**24)


def status_of(part: Part) -> str:
    """Return the status of a response whose last part this is."""
    return "incomplete" if part.reason == "length" else "completed"


def response(
    document: Document, body: Body, response_id: str, output: object, *, usage: object, status: str = "completed"
) -> dict[str, Any]:
    """Return a response object with its fields in Ollama's order. In a stream, Ollama sorts them by name."""
    now = int(time.time())
    return {
        "id": response_id,
        "object": "response",
        "created_at": now,
        "completed_at": now if status == "completed" else None,
        "status": status,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "model": body["model"],
        "previous_response_id": None,
        "instructions": body["instructions"] or None,
        "output": output,
        "error": None,
        "tools": [_tool(document, tool) for tool in body["tools"] or ()],
        "tool_choice": "auto",
        "truncation": "disabled" if body["truncation"] is None else body["truncation"],
        "parallel_tool_calls": True,
        "text": {"format": _format(body)},
        "top_p": 1.0 if body["top_p"] is None else body["top_p"],
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "top_logprobs": 0,
        "temperature": 1.0 if body["temperature"] is None else body["temperature"],
        "reasoning": _reasoning(body),
        "usage": usage,
        "max_output_tokens": body["max_output_tokens"],
        "max_tool_calls": None,
        "store": False,
        "background": body["background"],
        "service_tier": "default",
        "metadata": {},
        "safety_identifier": None,
        "prompt_cache_key": None,
    }


def full_answer(document: Document, body: Body, part: Part) -> dict[str, Any]:
    """Return the answer of a request that is not streamed."""
    response_id = f"resp_{new_number()}"
    output: list[dict[str, Any]] = []
    if part.thinking:
        output.append(reasoning_item(f"rs_{response_id}", part.thinking))
    status = status_of(part)
    if part.content or not part.tool_calls:
        # Models write text before calls. Only the last item of an answer can be incomplete.
        cut = "completed" if part.tool_calls else status
        output.append(message_item(f"msg_{new_number()}", part.content, status=cut))
    output += [call_item(f"fc_{response_id}_{index}", call) for index, call in enumerate(tool_calls(part.tool_calls))]
    return response(document, body, response_id, output, usage=usage(part), status=status)


def usage(part: Part) -> dict[str, Any]:
    """Return the token counts."""
    counts = part.usage
    return {
        "input_tokens": counts.prompt_tokens,
        "output_tokens": counts.output_tokens,
        "total_tokens": counts.prompt_tokens + counts.output_tokens,
        "input_tokens_details": {"cached_tokens": counts.cached_prompt_tokens},
        "output_tokens_details": {"reasoning_tokens": counts.thinking_tokens},
    }


def reasoning_item(item_id: str, text: str) -> dict[str, Any]:
    """Return thinking as an item."""
    summary = [{"type": "summary_text", "text": text}]
    return {"id": item_id, "type": "reasoning", "summary": summary, "encrypted_content": text}


def call_item(item_id: str, call: dict[str, Any]) -> dict[str, Any]:
    """Return a tool call of /v1/chat/completions as an item."""
    function = call["function"]
    item = {
        "id": item_id,
        "type": "function_call",
        "status": "completed",
        "call_id": call["id"],
        "name": function["name"],
        "arguments": function["arguments"],
    }
    return {name: value for name, value in item.items() if value}


def message_item(item_id: str, text: str, *, status: str = "completed") -> dict[str, Any]:
    """Return the answer's text as an item."""
    return {
        "id": item_id,
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": [text_part(text)],
    }


def text_part(text: str) -> dict[str, Any]:
    """Return a text as a content part."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _tool(document: Document, tool: Body) -> dict[str, Any]:
    parameters = plain(document, tool["parameters"])
    out = {
        "type": tool["type"],
        "name": tool["name"],
        "description": tool["description"],
        "strict": tool["strict"],
        "parameters": gojson.Raw(gojson.dumps(parameters, sort_keys=True)),
    }
    if tool["tools"]:
        out["tools"] = [_tool(document, each) for each in tool["tools"]]
    return out


def _format(body: Body) -> dict[str, Any]:
    wanted = body["text"]["format"] if body["text"] is not None else None
    if wanted is None:
        return {"type": "text"}
    out: dict[str, Any] = {"type": wanted["type"]}
    if wanted["name"]:
        out["name"] = wanted["name"]
    if wanted["schema"]:
        out["schema"] = gojson.Raw(_compact(wanted["schema"]))
    if wanted["strict"] is not None:
        out["strict"] = wanted["strict"]
    return out


def _compact(text: str) -> str:
    """Return raw JSON like Go's json.Compact with HTML escaping."""
    document = parse_whole(text)
    out: list[str] = []
    queue: list[Any] = [document.root]
    while queue:
        each = queue.pop()
        if isinstance(each, str):
            out.append(each)
        elif each.kind == "array":
            queue.append("]")
            for index, item in reversed(list(enumerate(each.value))):
                queue += [item, ","] if index else [item]
            queue.append("[")
        elif each.kind == "object":
            queue.append("}")
            for index, (key, item) in reversed(list(enumerate(each.value))):
                queue += [item, ("," if index else "") + gojson.string(key) + ":"]
            queue.append("{")
        else:
            out.append(gojson.string(each.value) if each.kind == "string" else document.raw(each))
    return "".join(out)


def _reasoning(body: Body) -> dict[str, Any] | None:
    wanted = body["reasoning"]
    out = {name: wanted[name] for name in ("effort", "summary") if wanted[name]}
    return out or None
