"""Answers of /v1/chat/completions."""

import random
import time
from collections.abc import Iterable
from typing import Any, Final

from puna.go import json as gojson
from puna_client.v1 import chat_pb2, message_pb2, usage_pb2
from puna_rest.errors import Failure
from puna_rest.translate.messages import debug_info, go_arguments, logprobs
from puna_rest.translate.parts import Part, full_answer, full_choices, parts

DONE: Final = "data: [DONE]\n\n"
_TYPES: Final = {400: "invalid_request_error", 404: "not_found_error"}


def new_id(prefix: str) -> str:
    """Return an id with the prefix and a number below 1000, like Ollama's."""
    return f"{prefix}-{random.randrange(999)}"


def error(failure: Failure) -> dict[str, Any]:
    """Return the error object."""
    kind = _TYPES.get(failure.status, "api_error")
    return {"error": {"message": failure.text, "type": kind, "param": None, "code": None}}


def error_event(failure: Failure) -> str:
    """Return the event that ends a stream that failed."""
    return f"data: {gojson.dumps(error(failure))}\n\n"


def completion(model: str, message: chat_pb2.ChatResponse) -> dict[str, Any]:
    """Return the answer of a request that is not streamed."""
    part = full_answer(message)
    out = {
        "id": new_id("chatcmpl"),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": "fp_ollama",
        "choices": [_choice(each) for each in full_choices(message)],
        "usage": usage(part.usage),
    }
    if part.rendered is not None:
        out["_debug_info"] = debug_info(part.rendered)
    return out


def _choice(part: Part) -> dict[str, Any]:
    said: dict[str, Any] = {"role": "assistant" if part.rendered is None else "", "content": part.content}
    if part.thinking:
        said["reasoning"] = part.thinking
    if part.tool_calls:
        said["tool_calls"] = tool_calls(part.tool_calls)
    reason = "tool_calls" if part.reason == "stop" and part.tool_calls else part.reason
    choice: dict[str, Any] = {"index": part.choice, "message": said, "finish_reason": reason or None}
    if part.logprobs:
        choice["logprobs"] = {"content": logprobs(part.logprobs)}
    return choice


def tool_calls(calls: Iterable[message_pb2.ToolCall]) -> list[dict[str, Any]]:
    """Return tool calls with their arguments as text."""
    return [
        {
            "id": call.id,
            "index": call.index,
            "type": "function",
            "function": {"name": call.name, "arguments": go_arguments(call.arguments_json)},
        }
        for call in calls
    ]


def usage(counts: usage_pb2.Usage) -> dict[str, Any]:
    """Return the token counts, also for /v1/completions.

    Ollama writes no details. They follow its counts where they are not zero, so that an answer without them has
    Ollama's bytes.
    """
    out: dict[str, Any] = {
        "prompt_tokens": counts.prompt_tokens,
        "completion_tokens": counts.output_tokens,
        "total_tokens": counts.prompt_tokens + counts.output_tokens,
    }
    if counts.cached_prompt_tokens:
        out["prompt_tokens_details"] = {"cached_tokens": counts.cached_prompt_tokens}
    if counts.thinking_tokens:
        out["completion_tokens_details"] = {"reasoning_tokens": counts.thinking_tokens}
    return out


def tool_call_deltas(deltas: Iterable[message_pb2.ToolCallDelta]) -> list[dict[str, Any]]:
    """Return parts of tool calls: id, type and name stand in the first part of a call alone."""
    return [
        {
            **({"id": each.id} if each.id else {}),
            "index": each.index,
            **({"type": "function"} if each.id else {}),
            "function": {**({"name": each.name} if each.id else {}), "arguments": each.arguments_json},
        }
        for each in deltas
    ]


class Chunks:
    """The writer of a stream. The fields that all chunks share are encoded once."""

    def __init__(self, model: str, *, include_usage: bool, call_deltas: bool = False) -> None:
        """`call_deltas`: whether the request asked for parts of tool calls."""
        self._model = gojson.string(model)
        self._call_deltas = call_deltas
        self._include_usage = include_usage
        self._start = ""
        self._begun: set[int] = set()
        """The indexes of the answers that have a chunk."""
        self._called: set[int] = set()
        self._streamed: set[tuple[int, int]] = set()
        """The calls whose arguments came in parts, as indexes of the answer and of the call."""
        self._several = False

    def write(self, message: chat_pb2.StreamChatResponse) -> str:
        """Return the chunks for one message of the core."""
        return "".join([self._part(part) for part in parts(message, call_deltas=self._call_deltas)])

    def _part(self, part: Part) -> str:
        if not self._start:
            self._start = (
                f'data: {{"id":"{new_id("chatcmpl")}","object":"chat.completion.chunk","created":{int(time.time())},'
                f'"model":{self._model},"system_fingerprint":"fp_ollama","choices":['
            )
        first = part.choice not in self._begun
        out = ""
        calls = self._calls(part) if part.tool_call_deltas or part.tool_calls else []
        said = part.content or part.thinking or calls or part.logprobs
        ends = part.finish is not None or part.ended is not None
        # The end of several answers together belongs to none of them.
        opens = first and not (self._several and part.finish is not None)
        # A call that came in parts has been written already.
        if opens or said or not (ends or part.rendered is not None or part.tool_calls):
            self._begun.add(part.choice)
            out = self._content(part, calls, role='"role":"assistant",' if first else "")
        if part.tool_calls:
            self._called.add(part.choice)
        if part.ended is not None:
            self._several = True
            return out + self._reason(part)
        return out if part.finish is None else out + self._end(part)

    def _calls(self, part: Part) -> list[dict[str, Any]]:
        self._streamed.update([(part.choice, each.index) for each in part.tool_call_deltas])
        whole = [each for each in part.tool_calls if (part.choice, each.index) not in self._streamed]
        return tool_call_deltas(part.tool_call_deltas) + tool_calls(whole)

    def _content(self, part: Part, called: list[dict[str, Any]], role: str) -> str:
        """Return the chunks of a part. A part with both thinking and content becomes two chunks."""
        extra = f',"logprobs":{{"content":{gojson.dumps(logprobs(part.logprobs))}}}' if part.logprobs else ""
        calls = f',"tool_calls":{gojson.dumps(called)}' if called else ""
        content = '"content":' + gojson.string(part.content)
        reasoning = '"reasoning":' + gojson.string(part.thinking)
        if part.thinking and (part.content or calls):
            return self._chunk(part, role + reasoning, extra) + self._chunk(part, content + calls, "")
        return self._chunk(part, role + content + ("," + reasoning if part.thinking else "") + calls, extra)

    def _chunk(self, part: Part, delta: str, extra: str, reason: str = "null") -> str:
        return f'{self._start}{{"index":{part.choice},"delta":{{{delta}}},"finish_reason":{reason}{extra}}}]}}\n\n'

    def _reason(self, part: Part) -> str:
        reason = part.reason or "stop"
        if reason == "stop" and part.choice in self._called:
            reason = "tool_calls"
        return self._chunk(part, "", "", f'"{reason}"')

    def _end(self, part: Part) -> str:
        out = "" if self._several else self._reason(part)
        if self._include_usage:
            out += f'{self._start}],"usage":{gojson.dumps(usage(part.usage))}}}\n\n'
        return out + DONE
