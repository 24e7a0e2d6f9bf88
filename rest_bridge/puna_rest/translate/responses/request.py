"""Bodies of /v1/responses."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from puna.go import json as gojson
from puna.go.json_scanner import BodyError, Document, parse_whole
from puna_client.v1 import chat_pb2, message_pb2, options_pb2
from puna_rest.bodies.custom import PARAMETERS, arguments
from puna_rest.errors import RestError
from puna_rest.gobody.decoder import AbortError, unmarshal
from puna_rest.gobody.kinds import plain
from puna_rest.translate import search
from puna_rest.translate.content_parts import Content
from puna_rest.translate.documents import file_text
from puna_rest.translate.openai.chat_request import FILE_ERROR, image, thinking, tool_choice
from puna_rest.translate.options import Body, moment, output_constraint


def request(document: Document, body: Body, start: int) -> chat_pb2.ChatRequest:
    """Return the ChatRequest of a body. `start`: arrival in nanoseconds since 1970. Raises RestError."""
    options: dict[str, Any] = {"temperature": 1.0 if body["temperature"] is None else body["temperature"]}
    if body["top_p"] is not None:
        options["top_p"] = body["top_p"]
    if body["max_output_tokens"] is not None:
        options["num_predict"] = body["max_output_tokens"]
    turns = _messages(body)
    level = thinking(body["reasoning"]["effort"])
    return chat_pb2.ChatRequest(
        model=body["model"],
        messages=turns,
        tools=_tools(document, body["tools"] or ()),
        tool_choice=tool_choice(body["tool_choice"]),
        options=options_pb2.RequestOptions(
            options_json=gojson.dumps(options),
            constraint=_constraint(body["text"]),
            truncate=True,
            thinking=level,
            start_time=moment(start),
        ),
    )


def has_web_search(body: Body) -> bool:
    """Return whether the tools include the built-in web search."""
    return any(tool["type"] == search.NAME for tool in body["tools"] or ())


def _constraint(text: Body | None) -> options_pb2.OutputConstraint | None:
    wanted = text["format"] if text is not None else None
    if wanted is None or wanted["type"] != "json_schema":
        return None
    return output_constraint(wanted["schema"])


def _messages(body: Body) -> list[message_pb2.ChatMessage]:
    turns: list[message_pb2.ChatMessage] = []
    if body["instructions"]:
        turns.append(message_pb2.ChatMessage(role="system", content=body["instructions"]))
    if body["input"]["text"]:
        turns.append(message_pb2.ChatMessage(role="user", content=body["input"]["text"]))
    # Reasoning items stand before the message or call that they led to, and templates want them in one message. The
    # bridge has put the plain thinking into encrypted_content, which clients return unchanged.
    thought = ""
    items = body["input"]["items"]
    for item, following in zip(items, [*items[1:], {}], strict=False):
        kind = item["type"]
        if kind == "reasoning":
            thought = item["encrypted_content"]
        elif kind == "message":
            content = _content(item["content"])
            message = message_pb2.ChatMessage(role=item["role"].lower())
            if message.role == "assistant":
                # It may be merged with the message before it, which has no parts either.
                message.content, message.thinking, thought = content.text, thought, ""
                message.media.extend(content.media)
            else:
                content.write(message)
            answered = following.get("call_id", "") if following.get("type") == "function_call_output" else ""
            if not (message.role == "assistant" and _merged(turns, message, answered)):
                turns.append(message)
        elif kind == "function_call":
            # Several calls of one turn are items of their own; templates want them in one assistant message.
            if not (turns and turns[-1].role == "assistant"):
                turns.append(message_pb2.ChatMessage(role="assistant"))
            turns[-1].tool_calls.append(_call(item))
            if thought:
                turns[-1].thinking, thought = thought, ""
        elif kind == "function_call_output":
            turns.append(message_pb2.ChatMessage(role="tool", tool_call_id=item["call_id"]))
            _content(item["output"]).write(turns[-1])
    # Thinking without an answer: the client cut the answer off and wants it continued.
    if thought:
        turns.append(message_pb2.ChatMessage(role="assistant", thinking=thought))
    return turns


def _merged(turns: Sequence[message_pb2.ChatMessage], message: message_pb2.ChatMessage, answered: str) -> bool:
    """Merge assistant text between a call and its output into the message with the call."""
    last = turns[-1] if turns else None
    if not answered or last is None or last.role != "assistant":
        return False
    if answered not in (call.id for call in last.tool_calls):
        return False
    if last.content and message.content:
        last.content += "\n"
    last.content += message.content
    last.media.extend(message.media)
    last.thinking = message.thinking or last.thinking
    return True


def _call(item: Mapping[str, Any]) -> message_pb2.ToolCall:
    try:
        document = parse_whole(item["arguments"] or "{}")
        text = arguments(document, document.root)
    except (BodyError, AbortError) as error:
        raise RestError(400, f"failed to parse function call arguments: {error}") from None
    return message_pb2.ToolCall(id=item["call_id"], name=item["name"], arguments_json=text)


def _content(parts: Iterable[Mapping[str, Any]]) -> Content:
    out = Content()
    for part in parts:
        if part["type"] in ("input_text", "output_text"):
            out.add(part["text"])
        elif part["type"] == "input_file":
            if (found := file_text(part["file_data"])) is None:
                raise FILE_ERROR
            out.add(found)
        elif part["image_url"]:
            out.add(options_pb2.Media(data=image(part["image_url"])))
    return out


def _tools(document: Document, bodies: Sequence[Body]) -> list[message_pb2.Tool]:
    # A client's own function of the same name would be called in place of the built-in search.
    searching = any(body["type"] == search.NAME for body in bodies)
    found: list[message_pb2.Tool] = []
    for body in bodies:
        if body["type"] == search.NAME:
            found.append(search.TOOL)
        else:
            found += [tool for tool in _expanded(document, body) if not (searching and tool.name == search.NAME)]
    return found


def _expanded(document: Document, body: Body) -> list[message_pb2.Tool]:
    """Return the tools of one entry. A namespace gives its members, with its name as a prefix."""
    if body["type"] != "namespace":
        return [_tool(document, body)]
    members = [tool for member in body["tools"] or () for tool in _expanded(document, member)]
    prefix = body["name"] + "." if body["name"] else ""
    for tool in members:
        if not tool.name.startswith(prefix):
            tool.name = prefix + tool.name
    return members


def _tool(document: Document, body: Body) -> message_pb2.Tool:
    text = ""
    if body["parameters"] is not None:
        text = gojson.dumps(plain(document, body["parameters"]), sort_keys=True)
        parameters = parse_whole(text)
        try:
            unmarshal(parameters, parameters.root, PARAMETERS)
        except AbortError as error:
            raise RestError(400, f"failed to unmarshal tool parameters: {error}") from None
    return message_pb2.Tool(
        type=body["type"], name=body["name"], description=body["description"] or "", parameters_json=text
    )
