"""The texts of requests and answers as attributes of spans. Only for servers whose operator asks for them.

The form is that of OpenTelemetry's conventions: JSON lists of messages, each with a role and parts. Texts share a
budget in bytes, and what does not fit is left out. Images and sounds are counted and never copied.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

from puna.messages import Message
from puna.serving.answers import Delta
from puna.serving.requests import ChatRequest, EmbedRequest, GenerateRequest, RerankRequest
from puna.tracing.attributes import ReadRequest, Value

INPUT: Final = "gen_ai.input.messages"
OUTPUT: Final = "gen_ai.output.messages"
CUT: Final = "puna.content_truncated"
LEAST: Final = 64
"""Bytes that a part of a message counts at least, so that many empty parts are bounded too."""


class _Budget:
    """The bytes that are left for texts."""

    def __init__(self, most: int) -> None:
        self.left = most
        self.cut = False

    def take(self, text: str) -> str:
        """Return the text, or as much of its beginning as fits."""
        # A character has at most four bytes in UTF-8, so the slice bounds the work for a text of any length.
        raw = text[: max(self.left, 0)].encode(errors="replace")
        taken = raw[: max(self.left, 0)].decode(errors="ignore")
        self.cut = self.cut or len(taken) < len(text)
        self.left -= max(len(raw), LEAST)
        return taken


def of_request(request: ReadRequest, most: int) -> dict[str, Value]:
    """Return the texts of a request in at most about `most` bytes."""
    budget = _Budget(most)
    found = _attribute(INPUT, _messages(request, budget), budget)
    stops = request.options.values.get("stop")
    if isinstance(stops, list | tuple) and all(isinstance(each, str) for each in stops):
        found["gen_ai.request.stop_sequences"] = tuple(budget.take(each) for each in stops if budget.left > 0)
    return found


def of_answer(deltas: Sequence[Delta], reasons: Sequence[str], most: int) -> dict[str, Value]:
    """Return the texts of an answer in at most about `most` bytes. `reasons` tell why each of its choices ended."""
    budget = _Budget(most)
    choices = max((each.choice for each in deltas), default=0) + 1
    messages = []
    for choice in range(choices):
        own = [each for each in deltas if each.choice == choice]
        message = Message(
            role="assistant",
            content="".join(each.text for each in own),
            thinking="".join(each.thinking for each in own),
            tool_calls=tuple(call for each in own for call in each.tool_calls),
        )
        messages.append(
            {**_message(message, budget), "finish_reason": reasons[choice] if choice < len(reasons) else "error"}
        )
    return _attribute(OUTPUT, messages, budget)


def _attribute(name: str, messages: Sequence[dict[str, Any]], budget: _Budget) -> dict[str, Value]:
    found: dict[str, Value] = {name: json.dumps(messages, ensure_ascii=False)}
    return found | ({CUT: True} if budget.cut else {})


def _messages(request: ReadRequest, budget: _Budget) -> list[dict[str, Any]]:
    if isinstance(request, ChatRequest):
        given: Sequence[Message] = request.messages
    elif isinstance(request, GenerateRequest):
        system = (Message(role="system", content=request.system),) if request.system else ()
        prompt = request.prompt if isinstance(request.prompt, str) else f"[{len(request.prompt)} tokens]"
        given = (*system, Message(role="user", content=prompt, media=request.media))
    else:
        given = [Message(role="user", content=each) for each in _texts(request)]
    found = []
    for each in given:
        if budget.left <= 0:
            budget.cut = True
            break
        found.append(_message(each, budget))
    return found


def _texts(request: ReadRequest) -> list[str]:
    if isinstance(request, EmbedRequest):
        return list(request.inputs)
    if isinstance(request, RerankRequest):
        return [request.query, *request.documents]
    assert not isinstance(request, GenerateRequest | ChatRequest)
    texts = (request.context, *request.continuations)
    return [each if isinstance(each, str) else f"[{len(each)} tokens]" for each in texts]


def _message(message: Message, budget: _Budget) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    if message.thinking:
        parts.append({"type": "reasoning", "content": budget.take(message.thinking)})
    if message.role == "tool":
        answer = {"type": "tool_call_response", "response": budget.take(message.content)}
        parts.append(answer | ({"id": budget.take(message.tool_call_id)} if message.tool_call_id else {}))
    elif message.content:
        parts.append({"type": "text", "content": budget.take(message.content)})
    if message.media:
        # The kind of the bytes is the backend's to find out.
        parts.append({"type": "blob", "count": len(message.media)})
    for call in message.tool_calls:
        if budget.left <= 0:
            budget.cut = True
            break
        texts = {name: budget.take(getattr(call, name)) for name in ("id", "name", "arguments")}
        parts.append({"type": "tool_call", **texts})
    return {"role": message.role, "parts": parts}
