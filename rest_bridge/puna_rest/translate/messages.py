"""Parts that several routes share: messages, tools, tool calls, metrics and log-probabilities."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from puna.go import json as gojson
from puna.go.json_scanner import Document, parse_whole
from puna.limits import clamp_int32
from puna_client.v1 import message_pb2, options_pb2, usage_pb2
from puna_rest.errors import CANCELED, RestError
from puna_rest.gobody.kinds import plain
from puna_rest.times import nanoseconds
from puna_rest.translate.options import Body

_DONE_REASONS: Final[Mapping[int, str]] = {
    usage_pb2.FINISH_REASON_UNSPECIFIED: "",
    usage_pb2.FINISH_REASON_STOP: "stop",
    usage_pb2.FINISH_REASON_LENGTH: "length",
    usage_pb2.FINISH_REASON_LOADED: "load",
    usage_pb2.FINISH_REASON_UNLOADED: "unload",
    usage_pb2.FINISH_REASON_TOOL_CALLS: "stop",
}


def done_reason(finish: usage_pb2.Finish | usage_pb2.ChoiceFinish) -> str:
    """Return Ollama's word for the end of an answer; empty if it has not ended.

    RestError: CancelRequests ended it. Ollama's API has no such end, and its clients must not take the answer for a
    complete one.
    """
    if finish.reason == usage_pb2.FINISH_REASON_CANCELLED:
        raise RestError(CANCELED, "the request was cancelled through CancelRequests", reason="CANCELLED")
    return _DONE_REASONS[finish.reason]


def messages(bodies: Sequence[Body] | None) -> list[message_pb2.ChatMessage]:
    """Return the messages of a body of /api/chat."""
    return [
        message_pb2.ChatMessage(
            role=each["role"],
            content=each["content"],
            thinking=each["thinking"],
            media=media(each["images"]),
            tool_calls=map(_call, each["tool_calls"] or ()),
            tool_name=each["tool_name"],
            tool_call_id=each["tool_call_id"],
        )
        for each in bodies or ()
    ]


def media(images: Iterable[bytes] | None) -> list[options_pb2.Media]:
    """Return decoded images and sounds as media."""
    return [options_pb2.Media(data=each) for each in images or ()]


def tools(document: Document, bodies: Sequence[Body] | None) -> list[message_pb2.Tool]:
    """Return the tools of a body of /api/chat or /v1/chat/completions."""
    return [
        message_pb2.Tool(
            type=each["type"],
            name=each["function"]["name"],
            description=each["function"]["description"],
            parameters_json=each["function"]["parameters"]["text"],
            items_json=document.raw(each["items"]) if each["items"] is not None else "",
        )
        for each in bodies or ()
    ]


def _call(body: Body) -> message_pb2.ToolCall:
    function = body["function"]
    return message_pb2.ToolCall(
        id=body["id"],
        index=clamp_int32(function["index"]),
        name=function["name"],
        arguments_json=function["arguments"],
    )


def go_arguments(text: str) -> str:
    """Return a call's arguments as Go encodes them.

    The keys keep their order, the keys of nested objects are sorted, and numbers are float64.
    """
    # Ollama decodes arguments into an ordered map whose values are plain Go values.
    document = parse_whole(text or "{}")
    values = {key: plain(document, node) for key, node in document.root.value}
    pairs = [f"{gojson.string(key)}:{gojson.dumps(item, sort_keys=True)}" for key, item in values.items()]
    return "{" + ",".join(pairs) + "}"


def tool_calls(calls: Iterable[message_pb2.ToolCall]) -> list[dict[str, Any]]:
    """Return tool calls as /api/chat writes them."""
    return [
        {
            **({"id": call.id} if call.id else {}),
            "function": {
                "index": call.index,
                "name": call.name,
                "arguments": gojson.Raw(go_arguments(call.arguments_json)),
            },
        }
        for call in calls
    ]


def logprobs(entries: Iterable[usage_pb2.TokenLogprob]) -> list[dict[str, Any]]:
    """Return log-probabilities: one entry per delta, with its text and the value of its last token."""
    # A token whose text is held back has an empty piece; its text comes with the token that releases it.
    return [_logprob(each) for each in entries if each.sent_text or not each.HasField("sent_text")]


def _logprob(entry: usage_pb2.TokenLogprob) -> dict[str, Any]:
    text = entry.sent_text or entry.text
    out: dict[str, Any] = {"token": text, "logprob": entry.logprob}
    # Ollama writes the bytes of the text that it sends, not of the token, and omits an empty list.
    if text:
        out["bytes"] = list(text.encode())
    if entry.top:
        out["top_logprobs"] = [_logprob(each) for each in entry.top]
    return out


def metrics(finish: usage_pb2.Finish) -> dict[str, int]:
    """Return token counts and durations. Go omits zeros, and so does this."""
    timings, usage = finish.timings, finish.usage
    every = {
        "total_duration": nanoseconds(timings.total),
        "load_duration": nanoseconds(timings.load),
        "prompt_eval_count": usage.prompt_tokens,
        "prompt_eval_duration": nanoseconds(timings.prefill),
        "eval_count": usage.output_tokens,
        "eval_duration": nanoseconds(timings.decode),
    }
    return {name: value for name, value in every.items() if value}


def debug_info(rendered: usage_pb2.RenderedPrompt) -> dict[str, Any]:
    """Return `_debug_info`, the rendered prompt."""
    out: dict[str, Any] = {"rendered_template": rendered.text}
    if rendered.image_count:
        out["image_count"] = rendered.image_count
    return out


def is_single(finish: usage_pb2.Finish, *, rendered: bool) -> bool:
    """Return whether the answer is one object even in a stream: only a load, an unload or a rendering was requested."""
    return rendered or finish.reason in (usage_pb2.FINISH_REASON_LOADED, usage_pb2.FINISH_REASON_UNLOADED)
