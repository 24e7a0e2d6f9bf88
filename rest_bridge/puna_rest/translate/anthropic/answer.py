"""Answers of /v1/messages.

Anthropic's schema requires a signature in each thinking block, and SDKs that validate answers refuse a block without
one. Ollama writes none. Clients of Anthropic's API send the header anthropic-version; the bridge signs thinking for
these clients alone, so that others get Ollama's bytes. A signature is a hash of the text and proves nothing. Signatures
in requests are not checked.
"""

import base64
import hashlib
import secrets
from typing import Any, Final

from puna.go import json as gojson
from puna_client.v1 import chat_pb2, message_pb2, usage_pb2
from puna_rest.errors import Failure
from puna_rest.translate import search
from puna_rest.translate.messages import go_arguments
from puna_rest.translate.parts import Part, parts

_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}
_REASONS: Final = {"": "", "stop": "end_turn", "length": "max_tokens"}


def new_id(prefix: str) -> str:
    """Return a random id with the prefix."""
    return f"{prefix}_{secrets.token_hex(12)}"


def error(failure: Failure) -> dict[str, Any]:
    """Return the error object."""
    kind = _TYPES.get(failure.status, "api_error")
    return {
        "type": "error",
        "error": {"type": kind, "message": failure.text},
        "request_id": new_id("req"),
    }


def error_event(failure: Failure) -> str:
    """Return the event that ends a stream that failed."""
    shape = error(failure)
    return event("error", {"type": "error", "error": shape["error"]})


def event(kind: str, data: dict[str, Any]) -> str:
    """Return a server-sent event."""
    return f"event: {kind}\ndata: {gojson.dumps(data)}\n\n"


def message(model: str, part: Part, *, searching: bool = False, signed: bool = False) -> dict[str, Any]:
    """Return the message of an answer that is not streamed.

    `searching`: the model was offered the web_search tool, which a server runs itself. `signed`: thinking blocks have a
    signature.
    """
    message_id = new_id("msg")
    if searching and (asked := search.asked_for(part.tool_calls)):
        found = _search_blocks(asked, message_id)
        return _message(message_id, model, found, "end_turn", usage(part.usage))
    content: list[dict[str, Any]] = []
    if part.thinking:
        signature = {"signature": _signature(hashlib.sha256(part.thinking.encode()))} if signed else {}
        content.append({"type": "thinking", "thinking": part.thinking, **signature})
    if part.content:
        content.append({"type": "text", "text": part.content})
    # The arguments keep their raw text, since a round trip through Python would change long numbers.
    content += [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": gojson.Raw(go_arguments(call.arguments_json))}
        for call in part.tool_calls
    ]
    return _message(
        message_id,
        model,
        content,
        _stop_reason(part, called=bool(part.tool_calls)),
        usage(part.usage),
    )


def usage(counts: usage_pb2.Usage) -> dict[str, int]:
    """Return the token counts.

    As in Anthropic's API, `input_tokens` leaves out the cached tokens, which have a count of their own. Ollama writes
    no such count. It is left out where it is zero, so that an answer without cached tokens has Ollama's bytes.
    """
    cached = counts.cached_prompt_tokens
    return {
        "input_tokens": counts.prompt_tokens - cached,
        **({"cache_read_input_tokens": cached} if cached else {}),
        "output_tokens": counts.output_tokens,
    }


def _message(
    message_id: str, model: str, content: list[dict[str, Any]], reason: str, counts: dict[str, int]
) -> dict[str, Any]:
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        **({"stop_reason": reason} if reason else {}),
        "usage": counts,
    }


def _signature(thinking: "hashlib._Hash") -> str:
    return base64.b64encode(thinking.digest()).decode()


def _search_blocks(asked: message_pb2.ToolCall, message_id: str) -> list[dict[str, Any]]:
    """Return the blocks of a web search that failed."""
    # Ollama derives the id of the call from the id of the message.
    search_id = "srvtoolu_" + message_id.removeprefix("msg_")
    query = search.query_of(asked)
    failed = {"type": "web_search_tool_result_error", "error_code": "unavailable" if query else "invalid_request"}
    return [
        {"type": "server_tool_use", "id": search_id, "name": search.NAME, "input": {"query": query}},
        {"type": "web_search_tool_result", "tool_use_id": search_id, "content": failed},
    ]


def _stop_reason(part: Part, *, called: bool) -> str:
    return "tool_use" if called else _REASONS.get(part.reason, "stop_sequence")


class Events:
    """The writer of a stream. At most one content block is open at a time."""

    def __init__(
        self, model: str, estimate: int, *, searching: bool = False, signed: bool = False, call_deltas: bool = False
    ) -> None:
        """`estimate`: tokens of the prompt for the first event. `searching` and `signed`: see message.

        `call_deltas`: whether the request asked for parts of tool calls.
        """
        self._call_deltas = call_deltas
        self._model = model
        self._id = new_id("msg")
        self._searching = searching
        self._signed = signed
        self._thinking = hashlib.sha256()
        self._search: message_pb2.ToolCall | None = None
        self._estimate = estimate
        self._started = False
        self._index = 0
        self._open = ""
        self._thought = False
        self._calls: set[str] = set()
        """The ids of complete calls."""
        self._streamed: set[str] = set()
        """The ids of calls whose arguments came in parts."""

    def write(self, response: chat_pb2.StreamChatResponse) -> str:
        """Return the events for one message of the core."""
        return "".join([self._part(part) for part in parts(response, call_deltas=self._call_deltas)])

    def _part(self, part: Part) -> str:
        if self._searching and self._search is None:
            self._search = search.asked_for(part.tool_calls)
        if self._search is not None:
            return "" if part.finish is None else self._end_with_search(part, self._search)
        out = "" if self._started else self._start(part)
        # Ollama writes one thinking block at most: thinking after other content is dropped.
        if part.thinking and not self._thought:
            self._thinking.update(part.thinking.encode())
            out += self._delta("thinking", part.thinking)
        if part.content:
            out += self._delta("text", part.content)
        for delta in part.tool_call_deltas:
            out += self._call_delta(delta)
        for call in part.tool_calls:
            # Ollama writes a call once per id, even if the model repeats it.
            if call.id not in self._calls and call.id not in self._streamed:
                out += self._call(call.id, call.name, go_arguments(call.arguments_json))
            self._calls.add(call.id)
        return out if part.finish is None else out + self._end(part)

    def _start(self, part: Part) -> str:
        self._started = True
        # The core counts the prompt with the last part alone. Clients show the first event's count at once.
        counts = usage(part.usage) if part.usage.prompt_tokens else {"input_tokens": self._estimate}
        begun = _message(self._id, self._model, [], "", counts | {"output_tokens": 0})
        return event("message_start", {"type": "message_start", "message": begun})

    def _delta(self, kind: str, text: str) -> str:
        out = ""
        if self._open != kind:
            block = {"type": kind, kind: ""}
            if kind == "thinking" and self._signed:
                block["signature"] = ""
            out = self._close() + self._begin(block)
            self._open = kind
        return out + self._add({"type": f"{kind}_delta", kind: text})

    def _call(self, call_id: str, name: str, arguments: str) -> str:
        out = self._begin_call(call_id, name)
        return out + self._add({"type": "input_json_delta", "partial_json": arguments}) + self._close()

    def _call_delta(self, delta: message_pb2.ToolCallDelta) -> str:
        """Return the events for a part of a call. The next block, or the end, closes the block of the call."""
        out = ""
        if delta.id:
            self._streamed.add(delta.id)
            out = self._begin_call(delta.id, delta.name)
        if delta.arguments_json:
            out += self._add({"type": "input_json_delta", "partial_json": delta.arguments_json})
        return out

    def _begin_call(self, call_id: str, name: str) -> str:
        out = self._close() + self._begin({"type": "tool_use", "id": call_id, "name": name, "input": {}})
        self._open = "tool_use"
        return out

    def _begin(self, block: dict[str, Any]) -> str:
        data = {"type": "content_block_start", "index": self._index, "content_block": block}
        return event("content_block_start", data)

    def _add(self, delta: dict[str, Any]) -> str:
        return event("content_block_delta", {"type": "content_block_delta", "index": self._index, "delta": delta})

    def _close(self) -> str:
        if not self._open:
            return ""
        out = ""
        if self._open == "thinking":
            self._thought = True
            if self._signed:
                # Anthropic sends the signature at the end of a block, because it covers the whole thinking.
                out = self._add({"type": "signature_delta", "signature": _signature(self._thinking)})
        self._open = ""
        self._index += 1
        return out + event("content_block_stop", {"type": "content_block_stop", "index": self._index - 1})

    def _end_with_search(self, part: Part, asked: message_pb2.ToolCall) -> str:
        """End with a failed search. Text after the call is dropped: Ollama would search and ask the model again."""
        out = ("" if self._started else self._start(part)) + self._close()
        for block in _search_blocks(asked, self._id):
            out += self._begin(block)
            self._open = block["type"]
            out += self._close()
        return out + self._stop(part, "end_turn")

    def _end(self, part: Part) -> str:
        return self._close() + self._stop(part, _stop_reason(part, called=bool(self._calls)))

    def _stop(self, part: Part, reason: str) -> str:
        data = {
            "type": "message_delta",
            "delta": {"stop_reason": reason} if reason else {},
            "usage": usage(part.usage),
        }
        return event("message_delta", data) + event("message_stop", {"type": "message_stop"})
