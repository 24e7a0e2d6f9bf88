"""Bodies of /v1/messages."""

from collections.abc import Mapping
from typing import Any, Final

from puna.go import json as gojson
from puna.go.json_scanner import Document
from puna.limits import clamp_int32
from puna_client.v1 import chat_pb2, message_pb2, options_pb2, tokenize_pb2
from puna_rest.bodies.custom import PARAMETERS
from puna_rest.errors import RestError
from puna_rest.gobody.decoder import AbortError, unmarshal
from puna_rest.gobody.kinds import decode_base64, plain
from puna_rest.translate import search
from puna_rest.translate.content_parts import Content
from puna_rest.translate.documents import document_text, refuse_block, search_result_text, texts
from puna_rest.translate.options import LEVELS, Body, moment

_MODES: Final = {
    "auto": message_pb2.ToolChoice.MODE_AUTO,
    "any": message_pb2.ToolChoice.MODE_REQUIRED,
    "none": message_pb2.ToolChoice.MODE_NONE,
}
_SOURCE: Final[Mapping[str, str]] = {"type": "", "media_type": "", "data": ""}


def request(document: Document, body: Body, start: int) -> chat_pb2.ChatRequest:
    """Return the ChatRequest of a body. `start`: arrival in nanoseconds since 1970. Raises RestError."""
    if not body["model"]:
        raise RestError(400, "model is required")
    if body["max_tokens"] <= 0:
        raise RestError(400, "max_tokens is required and must be positive")
    return _request(document, body, start)


def count_request(document: Document, body: Body, start: int) -> tokenize_pb2.CountTokensRequest:
    """Return the request that counts the prompt of a body, which needs no max_tokens. Raises RestError."""
    if not body["model"]:
        raise RestError(400, "model is required")
    return tokenize_pb2.CountTokensRequest(chat=_request(document, body, start))


def _request(document: Document, body: Body, start: int) -> chat_pb2.ChatRequest:
    if not body["messages"]:
        raise RestError(400, "messages is required")
    every = {
        "num_predict": body["max_tokens"] or None,
        "temperature": body["temperature"],
        "top_p": body["top_p"],
        "top_k": body["top_k"],
        "stop": body["stop_sequences"] or None,
    }
    turns = _system(document, body)
    for each in body["messages"]:
        turns += _messages(document, each)
    return chat_pb2.ChatRequest(
        model=body["model"],
        messages=turns,
        tools=_tools(document, body),
        tool_choice=_tool_choice(body["tool_choice"]),
        options=options_pb2.RequestOptions(
            options_json=gojson.dumps({name: value for name, value in every.items() if value is not None}),
            truncate=True,
            thinking=LEVELS[_think(body)],
            thinking_budget=_thinking_budget(body),
            thinking_if_possible=True,
            start_time=moment(start),
        ),
    )


def has_web_search(body: Body) -> bool:
    """Return whether the tools include the built-in web search."""
    return any(tool["type"].startswith(search.NAME) for tool in body["tools"] or ())


def _system(document: Document, body: Body) -> list[message_pb2.ChatMessage]:
    value = plain(document, body["system"])
    if isinstance(value, list):
        value = texts(value)
    return [message_pb2.ChatMessage(role="system", content=value)] if isinstance(value, str) and value else []


def _think(body: Body) -> bool | str | None:
    kind = body["thinking"]["type"] if body["thinking"] is not None else ""
    if kind in ("enabled", "disabled"):
        return kind == "enabled"
    effort = body["output_config"]["effort"].strip().lower() if body["output_config"] is not None else ""
    effort = "high" if effort == "xhigh" else effort
    return effort if effort in ("high", "medium", "low", "max") else None


def _thinking_budget(body: Body) -> int | None:
    """Return `budget_tokens` of thinking that is enabled. Anthropic's API demands it, Ollama does not."""
    thinking = body["thinking"]
    if thinking is None or thinking["type"] != "enabled" or thinking["budget_tokens"] <= 0:
        return None
    return clamp_int32(thinking["budget_tokens"])


def _tool_choice(body: Body | None) -> message_pb2.ToolChoice | None:
    if body is None:
        return None
    if body["type"] == "tool" and body["name"]:
        return message_pb2.ToolChoice(tool_name=body["name"])
    return message_pb2.ToolChoice(mode=_MODES[body["type"]]) if body["type"] in _MODES else None


def _tools(document: Document, body: Body) -> list[message_pb2.Tool]:
    searching = has_web_search(body)
    found = []
    for tool in body["tools"] or ():
        if tool["type"].startswith(search.NAME):
            found.append(search.TOOL)
        elif not (searching and tool["name"] == search.NAME):
            found.append(_tool(document, tool))
    return found


def _tool(document: Document, body: Body) -> message_pb2.Tool:
    schema = body["input_schema"]
    if schema is not None:
        try:
            unmarshal(document, schema, PARAMETERS)
        except AbortError as error:
            text = f"invalid input_schema for tool {gojson.quote(body['name'])}: {error}"
            raise RestError(400, text) from None
    given = schema is not None and schema.kind == "object"
    return message_pb2.Tool(
        type="function",
        name=body["name"],
        description=body["description"],
        parameters_json=document.raw(schema) if given else "",
    )


def _messages(document: Document, body: Body) -> list[message_pb2.ChatMessage]:
    """Return the messages for one message of the body. Each tool result becomes a message of its own."""
    role = body["role"].lower()
    said = message_pb2.ChatMessage(role=role)
    results: list[message_pb2.ChatMessage] = []
    thinking = ""
    content = Content()
    for block in body["content"] or ():
        kind = block["type"]
        if kind == "text":
            content.add(block["text"] or "")
        elif kind == "document":
            content.add_paragraph(_document(document, block))
        elif kind == "image":
            if block["source"] is None:
                raise RestError(400, "invalid image source")
            content.add(_image(block["source"]))
        elif kind in ("tool_use", "server_tool_use"):
            said.tool_calls.append(_call(block))
        elif kind == "tool_result":
            results.append(_result(document, block))
        elif kind == "web_search_tool_result":
            found = _search_result(plain(document, block["content"]))
            results.append(message_pb2.ChatMessage(role="tool", content=found, tool_call_id=block["tool_use_id"]))
        elif kind == "thinking":
            thinking = block["thinking"] or thinking
        elif kind != "redacted_thinking":  # encrypted by Anthropic
            raise refuse_block(kind)
    content.write(said)
    said.thinking = thinking
    spoken = [said] if content or said.tool_calls or said.thinking else []
    return [*results, *spoken] if role == "user" else [*spoken, *results]


def _document(document: Document, block: Body) -> str:
    fields = {name: plain(document, block[name]) for name in ("title", "context")}
    source = block["source"]
    if source is not None:
        fields["source"] = {**source, "content": plain(document, source["content"])}
    return document_text(fields)


def _call(block: Body) -> message_pb2.ToolCall:
    if block["type"] == "tool_use":
        for name in ("id", "name"):
            if not block[name]:
                raise RestError(400, f"tool_use block missing required '{name}' field")
    return message_pb2.ToolCall(id=block["id"], name=block["name"], arguments_json=block["input"] or "{}")


def _image(source: Body) -> options_pb2.Media:
    if source["type"] != "base64":
        kind = source["type"]
        raise RestError(400, f"invalid image source type: {kind}. Only base64 images are supported.")
    try:
        return options_pb2.Media(data=decode_base64(source["data"]))
    except ValueError as error:
        raise RestError(400, f"invalid base64 image data: {error}") from None


def _result(document: Document, block: Body) -> message_pb2.ChatMessage:
    message = message_pb2.ChatMessage(role="tool", tool_call_id=block["tool_use_id"])
    given = plain(document, block["content"])
    content = Content()
    if isinstance(given, str):
        content.add(given)
    for each in given if isinstance(given, list) else ():
        kind = each.get("type") if isinstance(each, dict) else ""
        if kind == "text" and isinstance(each.get("text"), str):
            content.add(each["text"])
        elif kind == "document":
            content.add_paragraph(document_text(each))
        elif kind == "search_result":
            content.add_paragraph(search_result_text(each))
        elif kind == "tool_reference" and isinstance(each.get("tool_name"), str):
            content.add_paragraph(each["tool_name"])
        elif kind == "image":
            source = each.get("source")
            if not isinstance(source, dict):
                raise RestError(400, "invalid tool_result image source")
            strings = {name: value for name, value in source.items() if isinstance(value, str)}
            content.add(_image({**_SOURCE, **strings}))
        else:
            raise refuse_block(kind)
    content.write(message)
    return message


def _search_result(content: Any) -> str:  # noqa: ANN401 - any JSON value
    """Return the result of an earlier web search as text."""
    if isinstance(content, str):
        return content
    if isinstance(content, dict) and content.get("type") == "web_search_tool_result_error":
        return _search_error(content)
    if not isinstance(content, list):
        return gojson.dumps(content, sort_keys=True)
    out = ""
    for item in content:
        kind = item.get("type") if isinstance(item, dict) else ""
        if kind == "web_search_result":
            title, url = (item[name] if isinstance(item.get(name), str) else "" for name in ("title", "url"))
            out += f"- {title}: {url}\n"
        elif kind == "web_search_tool_result_error":
            return _search_error(item)
    return out


def _search_error(content: Mapping[str, Any]) -> str:
    code = content.get("error_code")
    return f"web_search_tool_result_error: {code}" if isinstance(code, str) and code else "web_search_tool_result_error"
