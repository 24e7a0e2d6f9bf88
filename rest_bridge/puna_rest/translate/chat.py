"""/api/chat."""

from typing import Any

from puna.go import json as gojson
from puna.go.json_scanner import Document
from puna_client.v1 import chat_pb2, message_pb2, usage_pb2
from puna_rest.times import now
from puna_rest.translate.messages import (
    debug_info,
    done_reason,
    is_single,
    logprobs,
    messages,
    metrics,
    tool_calls,
    tools,
)
from puna_rest.translate.options import Body, request_options
from puna_rest.translate.parts import with_end


def request(document: Document, body: Body, start: int) -> chat_pb2.ChatRequest:
    """Return the request of a body. `start`: arrival in nanoseconds since 1970."""
    return chat_pb2.ChatRequest(
        model=body["model"],
        messages=messages(body["messages"]),
        tools=tools(document, body["tools"]),
        options=request_options(document, body, start),
        render_only=body["_debug_render_only"],
    )


class Answer:
    """The writer of one request's answer. The fields that all lines share are encoded once."""

    def __init__(self, model: str) -> None:
        self._start = '{"model":' + gojson.string(model) + ',"created_at":"'

    def lines(self, message: chat_pb2.StreamChatResponse) -> str:
        """Return the lines for one message of the core, each with a newline."""
        deltas, last = with_end(message.deltas, completes=message.done.completes_delta)
        out = "".join([self._delta(each) for each in deltas])
        return out + self._done(message.done, last or chat_pb2.ChatDelta()) + "\n" if message.HasField("done") else out

    def single(self, message: chat_pb2.StreamChatResponse) -> str:
        """Return the whole answer if the message is one that Ollama never streams, else an empty text."""
        done = message.done
        if message.HasField("done") and is_single(done.finish, rendered=done.HasField("rendered")):
            return self._done(done, message.deltas[-1] if message.deltas else chat_pb2.ChatDelta())
        return ""

    def full_answer(self, message: chat_pb2.ChatResponse) -> str:
        """Return the answer of a request with `stream: false`."""
        rendered = message.rendered if message.HasField("rendered") else None
        return self._end(message.message, message.logprobs, message.finish, rendered)

    # Lines are concatenated, not built as dicts: this code runs once per token, and encoding took most of its time.
    def _delta(self, delta: chat_pb2.ChatDelta) -> str:
        line = f'{self._start}{now()}","message":{_message(delta)},"done":false'
        if delta.logprobs:
            line += ',"logprobs":' + gojson.dumps(logprobs(delta.logprobs))
        return line + "}\n"

    def _done(self, done: chat_pb2.ChatDone, last: chat_pb2.ChatDelta) -> str:
        rendered = done.rendered if done.HasField("rendered") else None
        return self._end(last, last.logprobs, done.finish, rendered)

    def _end(
        self,
        content: chat_pb2.ChatDelta | message_pb2.ChatMessage,
        entries: Any,  # noqa: ANN401 - protobuf's list of TokenLogprob
        finish: usage_pb2.Finish,
        rendered: usage_pb2.RenderedPrompt | None,
    ) -> str:
        out: dict[str, Any] = {"done": rendered is None}
        if reason := done_reason(finish):
            out["done_reason"] = reason
        if rendered is not None:
            out["_debug_info"] = debug_info(rendered)
        if entries:
            out["logprobs"] = logprobs(entries)
        out |= metrics(finish)
        # For a rendered prompt Ollama writes the zero value of a message, whose role is empty.
        message = _message(content, role="assistant" if rendered is None else "")
        return f'{self._start}{now()}","message":{message},{gojson.dumps(out)[1:]}'


def _message(content: chat_pb2.ChatDelta | message_pb2.ChatMessage, role: str = "assistant") -> str:
    out = f'{{"role":"{role}","content":{gojson.string(content.content)}'
    if content.thinking:
        out += ',"thinking":' + gojson.string(content.thinking)
    if content.tool_calls:
        out += ',"tool_calls":' + gojson.dumps(tool_calls(content.tool_calls))
    return out + "}"
