"""/api/generate."""

from typing import Any

from puna.go import json as gojson
from puna.go.json_scanner import Document
from puna.limits import clamp_int32
from puna_client.v1 import generate_pb2, usage_pb2
from puna_rest.times import now
from puna_rest.translate.messages import (
    debug_info,
    done_reason,
    is_single,
    logprobs,
    media,
    metrics,
    tool_calls,
)
from puna_rest.translate.options import Body, request_options
from puna_rest.translate.parts import with_end


def request(document: Document, body: Body, start: int) -> generate_pb2.GenerateRequest:
    """Return the request of a body. `start`: arrival in nanoseconds since 1970."""
    out = generate_pb2.GenerateRequest(
        model=body["model"],
        text=body["prompt"],
        suffix=body["suffix"],
        system=body["system"],
        template=body["template"],
        raw=body["raw"],
        media=media(body["images"]),
        options=request_options(document, body, start),
        render_only=body["_debug_render_only"],
    )
    if body["context"] is not None:
        out.context.SetInParent()
        out.context.ids.extend(map(clamp_int32, body["context"]))
    return out


class Answer:
    """The writer of one request's answer. The fields that all lines share are encoded once."""

    def __init__(self, model: str) -> None:
        self._start = '{"model":' + gojson.string(model) + ',"created_at":"'

    def lines(self, message: generate_pb2.StreamGenerateResponse) -> str:
        """Return the lines for one message of the core, each with a newline."""
        deltas, last = with_end(message.deltas, completes=message.done.completes_delta)
        out = "".join([self._delta(each) for each in deltas])
        return (
            out + self._done(message.done, last or generate_pb2.GenerateDelta()) + "\n"
            if message.HasField("done")
            else out
        )

    def single(self, message: generate_pb2.StreamGenerateResponse) -> str:
        """Return the whole answer if the message is one that Ollama never streams, else an empty text."""
        done = message.done
        if message.HasField("done") and is_single(done.finish, rendered=done.HasField("rendered")):
            return self._done(done, message.deltas[-1] if message.deltas else generate_pb2.GenerateDelta())
        return ""

    def full_answer(self, message: generate_pb2.GenerateResponse) -> str:
        """Return the answer of a request with `stream: false`."""
        rendered = message.rendered if message.HasField("rendered") else None
        return self._end(message, message.finish, message.context.ids, rendered)

    def _delta(self, delta: generate_pb2.GenerateDelta) -> str:
        thinking = ',"thinking":' + gojson.string(delta.thinking) if delta.thinking else ""
        line = f'{self._start}{now()}","response":{gojson.string(delta.text)}{thinking},"done":false'
        if delta.tool_calls:
            line += ',"tool_calls":' + gojson.dumps(tool_calls(delta.tool_calls))
        if delta.logprobs:
            line += ',"logprobs":' + gojson.dumps(logprobs(delta.logprobs))
        return line + "}\n"

    def _done(self, done: generate_pb2.GenerateDone, last: generate_pb2.GenerateDelta) -> str:
        rendered = done.rendered if done.HasField("rendered") else None
        return self._end(last, done.finish, done.context.ids, rendered)

    def _end(
        self,
        content: generate_pb2.GenerateDelta | generate_pb2.GenerateResponse,
        finish: usage_pb2.Finish,
        context: Any,  # noqa: ANN401 - protobuf's list of int
        rendered: usage_pb2.RenderedPrompt | None,
    ) -> str:
        out: dict[str, Any] = {}
        if content.thinking:
            out["thinking"] = content.thinking
        out["done"] = rendered is None
        if reason := done_reason(finish):
            out["done_reason"] = reason
        if context:
            out["context"] = gojson.Raw("[" + ",".join(map(str, context)) + "]")
        out |= metrics(finish)
        if content.tool_calls:
            out["tool_calls"] = tool_calls(content.tool_calls)
        if rendered is not None:
            out["_debug_info"] = debug_info(rendered)
        if content.logprobs:
            out["logprobs"] = logprobs(content.logprobs)
        return f'{self._start}{now()}","response":{gojson.string(content.text)},{gojson.dumps(out)[1:]}'
