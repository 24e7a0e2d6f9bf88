"""/v1/completions."""

import time
from typing import Any

from puna.go import json as gojson
from puna.go.json_scanner import Document
from puna.limits import clamp_int32
from puna_client.v1 import generate_pb2, options_pb2, usage_pb2
from puna_rest.errors import RestError
from puna_rest.gobody.kinds import plain
from puna_rest.translate.messages import done_reason
from puna_rest.translate.openai.chat_answer import DONE, new_id, usage
from puna_rest.translate.openai.chat_request import whole
from puna_rest.translate.options import Body, moment
from puna_rest.translate.parts import with_end


def request(document: Document, body: Body, start: int) -> generate_pb2.GenerateRequest:
    """Return the GenerateRequest of a body. `start`: arrival in nanoseconds since 1970. Raises RestError."""
    every = {
        "stop": _stops(document, body),
        "num_predict": body["max_tokens"],
        "temperature": 1.0 if body["temperature"] is None else body["temperature"],
        "seed": body["seed"],
        "frequency_penalty": body["frequency_penalty"],
        "presence_penalty": body["presence_penalty"],
        "top_p": body["top_p"] or 1.0,
    }
    wanted = body["logprobs"] or 0
    return generate_pb2.GenerateRequest(
        model=body["model"],
        text=body["prompt"],
        suffix=body["suffix"],
        render_only=body["_debug_render_only"],
        n=whole(body["n"]),
        options=options_pb2.RequestOptions(
            options_json=gojson.dumps({name: value for name, value in every.items() if value is not None}),
            truncate=True,
            logprobs=wanted > 0,
            top_logprobs=clamp_int32(max(wanted, 0)),
            start_time=moment(start),
        ),
    )


def completion(model: str, message: generate_pb2.GenerateResponse) -> dict[str, Any]:
    """Return the answer of a request that is not streamed."""
    choices = [_choice(each.text, each.finish) for each in message.choices] or [_choice(message.text, message.finish)]
    return answer(model, choices, message.finish.usage)


def answer(model: str, choices: list[dict[str, Any]], counts: usage_pb2.Usage) -> dict[str, Any]:
    """Return an answer with its choices."""
    return {
        "id": new_id("cmpl"),
        "object": "text_completion",
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": "fp_ollama",
        "choices": choices,
        "usage": usage(counts),
    }


def _choice(text: str, end: usage_pb2.Finish | usage_pb2.ChoiceFinish) -> dict[str, Any]:
    index = end.choice if isinstance(end, usage_pb2.ChoiceFinish) else 0
    return {"text": text, "index": index, "finish_reason": done_reason(end) or None}


class Chunks:
    """The writer of a stream."""

    def __init__(self, model: str, *, include_usage: bool) -> None:
        self._model = gojson.string(model)
        self._include_usage = include_usage
        self._several = False
        self._start = f'data: {{"id":"{new_id("cmpl")}","object":"text_completion","created":'
        self._zeros = ',"usage":' + gojson.dumps(usage(usage_pb2.Usage())) if include_usage else ""

    def write(self, message: generate_pb2.StreamGenerateResponse) -> str:
        """Return the chunks for one message of the core."""
        deltas, last = with_end(message.deltas, completes=message.done.completes_delta)
        out = "".join([self._chunk(self._choice(delta.text, "", delta.choice), self._zeros) for delta in deltas])
        for end in message.choice_finishes:
            self._several = True
            out += self._chunk(self._choice("", done_reason(end), end.choice), self._zeros)
        if not message.HasField("done"):
            return out
        done = message.done
        reason = "" if done.HasField("rendered") else done_reason(done.finish)
        # Each of several answers has had an end of its own.
        if not self._several:
            out += self._chunk(self._choice(last.text if last else "", reason), self._zeros)
        if done.HasField("rendered"):
            return out
        if self._include_usage:
            out += self._chunk("", ',"usage":' + gojson.dumps(usage(done.finish.usage)))
        return out + DONE

    def _choice(self, text: str, reason: str, index: int = 0) -> str:
        return f'{{"text":{gojson.string(text)},"index":{index},"finish_reason":{gojson.dumps(reason or None)}}}'

    def _chunk(self, choices: str, counts: str) -> str:
        return (
            f'{self._start}{int(time.time())},"choices":[{choices}],"model":{self._model},'
            f'"system_fingerprint":"fp_ollama"{counts}}}\n\n'
        )


def _stops(document: Document, body: Body) -> list[str] | None:
    value = plain(document, body["stop"])
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        return None
    for each in value:
        if not isinstance(each, str):
            raise RestError(400, f"invalid type for 'stop' field: {_go_name(each)}")
    return value or None


def _go_name(value: object) -> str:
    names = {type(None): "<nil>", bool: "bool", float: "float64", list: "[]interface {}"}
    return names.get(type(value), "map[string]interface {}")
