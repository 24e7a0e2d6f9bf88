"""/v1/completions with `echo` and `logprobs`: prompts come back with the log-probabilities of their tokens.

Harnesses that evaluate models score texts so. Prompts are used without a template, since a template would change what
is scored. They may be texts or token ids, one or several. Ollama ignores `echo`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from puna.go.json_scanner import Document, Node
from puna.limits import LARGEST_INT32, clamp_int32
from puna_client.v1 import generate_pb2, options_pb2, rank_pb2, usage_pb2
from puna_rest.errors import RestError
from puna_rest.gobody.kinds import plain
from puna_rest.translate.messages import done_reason
from puna_rest.translate.openai import completions
from puna_rest.translate.options import Body, moment


def wanted(document: Document) -> bool:
    """Return whether a body asks for scored prompts: `echo` with `logprobs`, and no stream."""
    if document.root.kind != "object":
        return False
    fields: dict[str, Node] = dict(document.root.value)
    echo, stream, logprobs = (fields.get(name) for name in ("echo", "stream", "logprobs"))
    streams = stream is not None and stream.kind == "bool" and stream.value
    echoes = echo is not None and echo.kind == "bool" and echo.value
    return bool(echoes and logprobs is not None and logprobs.kind == "number" and not streams)


def prompts(document: Document, body: Body) -> list[str | list[int]]:
    """Return the prompts of a body, as texts or token ids. Raises RestError."""
    value = plain(document, body["prompt"])
    # One prompt is a text or a list of numbers; several are a list of those.
    several = value if isinstance(value, list) and not all(isinstance(each, float) for each in value) else [value]
    if not value:
        raise RestError(400, "prompt is empty")
    return [_prompt(each) for each in several]


def _prompt(value: object) -> str | list[int]:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, list) and value and all(isinstance(each, float) for each in value):
        if not all(each.is_integer() and 0 <= each <= LARGEST_INT32 for each in value):
            raise RestError(400, "a token id of the prompt is not in the vocabulary")
        return [int(each) for each in value]
    raise RestError(400, "prompt must be a text, a list of token ids, or a list of these, and none may be empty")


def score_request(body: Body, tokens: Sequence[Sequence[int]], start: int) -> rank_pb2.ScoreRequest:
    """Return the request that scores all tokens of prompts but their first ones."""
    return rank_pb2.ScoreRequest(
        model=body["model"],
        # Set and empty, so that nothing is put in front of a prompt.
        token_ids=usage_pb2.TokenIds(),
        continuations=[rank_pb2.Continuation(token_ids=usage_pb2.TokenIds(ids=each)) for each in tokens],
        options=options_pb2.RequestOptions(
            logprobs=True, top_logprobs=clamp_int32(body["logprobs"]), start_time=moment(start)
        ),
    )


def generate_request(
    document: Document, body: Body, tokens: Sequence[int], start: int
) -> generate_pb2.GenerateRequest | None:
    """Return the request that continues a prompt; None if the body wants no tokens behind it."""
    if body["max_tokens"] == 0:
        return None
    message = completions.request(document, {**body, "prompt": ""}, start)
    message.token_ids.ids.extend(tokens)
    message.raw = True
    message.ClearField("n")
    # Its own field says how many alternatives there are; 0 means none, and not that there are no log-probabilities.
    message.options.logprobs = True
    return message


@dataclass(frozen=True)
class Scored:
    """A prompt and what is known of it."""

    text: str
    first: usage_pb2.TokenLogprob
    """The first token, which has no log-probability."""
    result: rank_pb2.ScoreResponse.Result
    answer: generate_pb2.GenerateResponse
    """The continuation; empty if none is wanted."""


def completion(model: str, scored: Sequence[Scored], prompt_tokens: int) -> dict[str, Any]:
    """Return the answer."""
    counts = usage_pb2.Usage(
        prompt_tokens=prompt_tokens, output_tokens=sum(each.answer.finish.usage.output_tokens for each in scored)
    )
    return completions.answer(model, [_choice(index, each) for index, each in enumerate(scored)], counts)


def _choice(index: int, scored: Scored) -> dict[str, Any]:
    text = scored.text + scored.answer.text
    entries = [scored.first, *scored.result.tokens, *scored.answer.logprobs]
    return {
        "text": text,
        "index": index,
        "logprobs": {
            "tokens": [each.text for each in entries],
            "token_logprobs": [None, *(each.logprob for each in entries[1:])],
            "top_logprobs": [None, *(_alternatives(each) for each in entries[1:])],
            "text_offset": _offsets(text.encode(), [each.raw for each in entries]),
        },
        "finish_reason": (done_reason(scored.answer.finish) or None) if scored.answer.HasField("finish") else "length",
    }


def _alternatives(entry: usage_pb2.TokenLogprob) -> dict[str, float]:
    """Return the alternatives to a token and the token itself. Of two with one text, the more probable one counts."""
    found: dict[str, float] = {}
    for each in (*entry.top, entry):
        found.setdefault(each.text, each.logprob)
    return found


def _offsets(text: bytes, tokens: Sequence[bytes]) -> list[int]:
    """Return where each token begins in a text, in characters. Special tokens take no place in it."""
    offsets: list[int] = []
    place = characters = 0
    for raw in tokens:
        offsets.append(characters)
        # Some tokenizers put a space in front of a text.
        for written in (raw, raw.removeprefix(b" ")):
            if text.startswith(written, place):
                # Bytes that continue a character are not counted, so the parts of one character count as one.
                characters += sum(byte & 0xC0 != 0x80 for byte in written)
                place += len(written)
                break
    return offsets
