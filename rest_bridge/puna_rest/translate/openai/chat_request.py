"""Bodies of /v1/chat/completions."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from puna.go import json as gojson
from puna.go.json_scanner import BodyError, Document, Node, parse_whole
from puna.limits import clamp_int32
from puna.offload import CHUNK
from puna_client.v1 import chat_pb2, message_pb2, options_pb2
from puna_rest.bodies.custom import arguments
from puna_rest.errors import RestError
from puna_rest.gobody.decoder import AbortError
from puna_rest.gobody.kinds import decode_base64, plain
from puna_rest.translate.documents import file_text
from puna_rest.translate.messages import tools
from puna_rest.translate.options import LEVELS, Body, moment, output_constraint

_EFFORTS: Final[Mapping[str, object]] = {
    "": None,
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "max": "max",
    "xhigh": "max",
    "ultra": "max",
}
_TYPES: Final = {"number": "float64", "bool": "bool", "object": "map[string]interface {}"}
_IMAGE_PREFIXES: Final = ("data:;base64,", *(f"data:image/{kind};base64," for kind in ("jpeg", "jpg", "png", "webp")))
_CHOICES: Final = {
    "auto": message_pb2.ToolChoice.MODE_AUTO,
    "none": message_pb2.ToolChoice.MODE_NONE,
    "required": message_pb2.ToolChoice.MODE_REQUIRED,
}
_WHOLE: Final = re.compile(r"-?[0-9]{1,19}")
FORMAT_ERROR: Final = RestError(400, "invalid message format")
FILE_ERROR: Final = RestError(400, "file inputs are not currently supported")
"""Ollama's error for every file. The bridge reads text files and uses the error for the others."""


def check_messages(body: Body) -> None:
    """Raise RestError for a conversation without messages."""
    if not body["messages"]:
        raise RestError(400, "[] is too short - 'messages'")


def request(document: Document, body: Body, start: int) -> chat_pb2.ChatRequest:
    """Return the ChatRequest of a body. `start`: arrival in nanoseconds since 1970. Raises RestError."""
    turns: list[message_pb2.ChatMessage] = []
    # Clients send a tool's result with the id of the call. Templates need the name of the tool, so it is looked up.
    called = _called(body["messages"])
    for each in body["messages"]:
        turns += _messages(document, called, each)
    options = options_pb2.RequestOptions(
        options_json=gojson.dumps(_options(document, body)),
        constraint=_constraint(body["response_format"]),
        truncate=True,
        logprobs=bool(body["logprobs"]),
        top_logprobs=clamp_int32(body["top_logprobs"]),
        start_time=moment(start),
    )
    effort = body["reasoning"]["effort"] if body["reasoning"] is not None else body["reasoning_effort"] or ""
    options.thinking = thinking(effort)
    if (budget := _thinking_budget(body)) is not None:
        options.thinking_budget = budget
        # A backend that cannot enforce the number ignores it, as Ollama does. With an effort, this option would also
        # hide that the model cannot think.
        options.thinking_if_possible = not effort
    return chat_pb2.ChatRequest(
        model=body["model"],
        messages=turns,
        tools=tools(document, body["tools"]),
        tool_choice=tool_choice(body["tool_choice"]),
        options=options,
        render_only=body["_debug_render_only"],
        n=whole(body["n"]),
    )


def _thinking_budget(body: Body) -> int | None:
    """Return the limit on thinking. OpenAI's API has none; its clients send the fields of OpenRouter and vLLM."""
    given = [body["thinking_token_budget"], body["reasoning"]["max_tokens"] if body["reasoning"] is not None else ""]
    return next((budget for each in given if (budget := whole(each)) is not None and budget >= 0), None)


def whole(raw: str) -> int | None:
    """Return an integer that Ollama ignores. Other values are ignored, so that no request is refused for them."""
    return clamp_int32(int(raw)) if _WHOLE.fullmatch(raw) else None


def thinking(effort: str) -> options_pb2.ThinkingLevel.ValueType:
    """Return the thinking level of `reasoning_effort`. Raises RestError."""
    if effort not in _EFFORTS:
        raise RestError(
            400,
            f"invalid reasoning value: {gojson.quote(effort)} "
            '(must be "minimal", "low", "medium", "high", "xhigh", "ultra", "max", or "none")',
        )
    return LEVELS[_EFFORTS[effort]]


def tool_choice(raw: str) -> message_pb2.ToolChoice | None:
    """Return the ToolChoice of `tool_choice`. An unknown value is ignored."""
    value = None
    # A longer text is none of the values below, and parsing it here would block the event loop.
    if raw and len(raw) <= CHUNK:
        document = parse_whole(raw)
        value = plain(document, document.root)
    if isinstance(value, str) and value in _CHOICES:
        return message_pb2.ToolChoice(mode=_CHOICES[value])
    if isinstance(value, dict):
        # /v1/chat/completions nests the name in "function", /v1/responses has it at the top.
        inner = value.get("function")
        name = inner.get("name") if isinstance(inner, dict) else value.get("name")
        if value.get("type") == "function" and isinstance(name, str):
            return message_pb2.ToolChoice(tool_name=name)
    return None


def image(url: str) -> bytes:
    """Return the image of a data URL. Raises RestError."""
    if url.startswith(("http://", "https://")):
        raise RestError(400, "image URLs are not currently supported, please use base64 encoded data instead")
    for prefix in _IMAGE_PREFIXES:
        if url.startswith(prefix):
            try:
                return decode_base64(url.removeprefix(prefix))
            except ValueError:
                break
    raise RestError(400, "invalid image input")


def stops(document: Document, node: Node | None) -> list[str] | None:
    """Return the stop strings. Items of another type are dropped, as in Ollama."""
    if node is None:
        return None
    if node.kind == "string":
        return [node.value]
    if node.kind == "array":
        return [each for each in plain(document, node) if isinstance(each, str)] or None
    return None


def _options(document: Document, body: Body) -> dict[str, Any]:
    limit = body["max_tokens"]
    if limit is None and _WHOLE.fullmatch(body["max_completion_tokens"]):
        limit = int(body["max_completion_tokens"])
    # Ollama sets temperature and top_p to OpenAI's defaults here, whatever the model's parameters say.
    every = {
        "stop": stops(document, body["stop"]),
        "num_predict": limit,
        "temperature": 1.0 if body["temperature"] is None else body["temperature"],
        "seed": body["seed"],
        "frequency_penalty": body["frequency_penalty"],
        "presence_penalty": body["presence_penalty"],
        "top_p": 1.0 if body["top_p"] is None else body["top_p"],
    }
    return {name: value for name, value in every.items() if value is not None}


def _constraint(wanted: Body | None) -> options_pb2.OutputConstraint | None:
    kind = wanted["type"].strip().lower() if wanted is not None else ""
    if kind == "json_object":
        return options_pb2.OutputConstraint(json_object=True)
    if kind == "json_schema" and wanted is not None and wanted["json_schema"] is not None:
        return output_constraint(wanted["json_schema"]["schema"])
    return None


def _messages(document: Document, called: Mapping[str, str], body: Body) -> list[message_pb2.ChatMessage]:
    """Return the messages for one message of the body. Each content part becomes a message, as in Ollama."""
    role = body["role"].lower()
    name = ""
    if role == "tool":
        name = body["name"] or called.get(body["tool_call_id"], "")
    content = body["content"]
    if content is not None and content.kind == "array":
        found = [_part(role, plain(document, each)) for each in content.value]
        if found and body["tool_calls"]:
            # The fields of the whole message go to its last part, as in Ollama; without calls they are lost there.
            found[-1].tool_calls.extend(_calls(body["tool_calls"]))
            found[-1].tool_name = name
            found[-1].tool_call_id = body["tool_call_id"]
            found[-1].thinking = body["reasoning"]
        return found
    message = message_pb2.ChatMessage(role=role, thinking=body["reasoning"], tool_call_id=body["tool_call_id"])
    if content is not None and content.kind == "string":
        message.content = content.value
        message.tool_name = name
    elif body["tool_calls"] is None:
        kind = _TYPES[content.kind] if content is not None else "<nil>"
        raise RestError(400, f"invalid message content type: {kind}")
    message.tool_calls.extend(_calls(body["tool_calls"] or ()))
    return [message]


def _part(role: str, part: Any) -> message_pb2.ChatMessage:  # noqa: ANN401 - any JSON value
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return message_pb2.ChatMessage(role=role, content=part["text"])
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        return message_pb2.ChatMessage(role=role, content=part["refusal"])
    if kind == "file" and isinstance(part.get("file"), dict):
        return message_pb2.ChatMessage(role=role, content=_file(part["file"]))
    if kind == "image_url":
        url = part.get("image_url")
        url = url.get("url") if isinstance(url, dict) else url
        if isinstance(url, str):
            return message_pb2.ChatMessage(role=role, media=[options_pb2.Media(data=image(url))])
    if kind == "input_audio":
        return message_pb2.ChatMessage(role=role, media=[options_pb2.Media(data=_audio(part.get("input_audio")))])
    raise FORMAT_ERROR


def _file(file: Mapping[str, Any]) -> str:
    data = file.get("file_data")
    text = file_text(data) if isinstance(data, str) else None
    if text is None:
        raise FILE_ERROR
    return text


def _audio(value: object) -> bytes:
    if not isinstance(value, dict):
        raise RestError(400, "invalid input_audio format")
    if not isinstance(value.get("data"), str):
        raise RestError(400, "invalid input_audio format: missing data")
    try:
        return decode_base64(value["data"])
    except ValueError as error:
        raise RestError(400, f"invalid input_audio base64 data: {error}") from None


def _called(history: Sequence[Body]) -> dict[str, str]:
    """Return the names of earlier calls by id. For a repeated id, the last message's first call wins, as in Ollama."""
    names: dict[str, str] = {}
    for message in history:
        # Reversed, so that of equal ids in one message the first wins.
        names |= {call["id"]: call["function"]["name"] for call in reversed(message["tool_calls"] or ()) if call["id"]}
    return names


def _calls(bodies: Sequence[Body]) -> list[message_pb2.ToolCall]:
    return [
        message_pb2.ToolCall(
            id=each["id"], name=each["function"]["name"], arguments_json=call_arguments(each["function"]["arguments"])
        )
        for each in bodies
    ]


def call_arguments(text: str) -> str:
    """Return the arguments of an earlier call, which must be the text of a JSON object. Raises RestError."""
    try:
        document = parse_whole(text)
        return arguments(document, document.root)
    except (BodyError, AbortError):
        raise RestError(400, "invalid tool call arguments") from None
