"""/api/tokenize and /api/detokenize.

Ollama has neither. Several proposals and clients exist for these names; README.md describes the form, which serves all
of them.
"""

import time
from typing import Any

from puna.go import json as gojson
from puna.go.json_scanner import Document
from puna.limits import LARGEST_INT32
from puna_client.v1 import chat_pb2, tokenize_pb2
from puna_rest.errors import RestError
from puna_rest.translate.messages import messages, tools
from puna_rest.translate.options import LEVELS, Body, model_options

_TEXTS = ("content", "text", "prompt")


def request(document: Document, body: Body, start: int) -> tokenize_pb2.TokenizeRequest:
    """Return the request that tokenizes the text of a body. `start`: arrival in nanoseconds since 1970.

    RestError: there are two texts that differ, or there are tools without messages.
    """
    _check_model(body)
    texts = {body[name] for name in _TEXTS} - {""}
    if len(texts) > 1:
        raise RestError(400, "content, text and prompt are names of one field; send one of them")
    if body["tools"]:
        raise RestError(400, "tools need messages")
    return tokenize_pb2.TokenizeRequest(
        model=body["model"],
        text=texts.pop() if texts else "",
        # The answers of all proposals begin without BOS.
        add_special=body["add_special"] is True,
        parse_special=body["parse_special"] is not False,
        with_pieces=body["with_pieces"],
        options=model_options(document, body, start),
    )


def count_request(document: Document, body: Body, start: int) -> tokenize_pb2.CountTokensRequest:
    """Return the request that tokenizes the conversation of a body, as /api/chat would render it."""
    _check_model(body)
    if any(body[name] for name in _TEXTS):
        raise RestError(400, "a request has either a text or messages")
    if not body["messages"]:
        raise RestError(400, "messages is empty")
    options = model_options(document, body, start)
    options.truncate = body["truncate"] is not False
    options.thinking = LEVELS[body["think"]]
    return tokenize_pb2.CountTokensRequest(
        chat=chat_pb2.ChatRequest(
            model=body["model"],
            messages=messages(body["messages"]),
            tools=tools(document, body["tools"]),
            options=options,
        ),
        with_token_ids=True,
    )


def detokenize_request(document: Document, body: Body, start: int) -> tokenize_pb2.DetokenizeRequest:
    """Return the request that makes a text of tokens. RestError: an id is no token of any model."""
    _check_model(body)
    tokens = body["tokens"] or []
    for each in tokens:
        if not 0 <= each <= LARGEST_INT32:
            raise RestError(400, f"token {each} is not in the vocabulary")
    return tokenize_pb2.DetokenizeRequest(
        model=body["model"],
        token_ids=tokens,
        skip_special=body["skip_special"],
        options=model_options(document, body, start),
    )


def tokens(model: str, response: tokenize_pb2.TokenizeResponse, start: int) -> str:
    """Return the answer for a text."""
    out = _tokens(model, response.token_ids, len(response.token_ids), response.context_length)
    if response.pieces:
        # Bytes that are not UTF-8 come as a list of numbers, as in llama.cpp's server.
        out["pieces"] = [_piece(each) for each in response.pieces]
    return _timed(out, start)


def counted(model: str, response: tokenize_pb2.CountTokensResponse, start: int) -> str:
    """Return the answer for a conversation."""
    return _timed(_tokens(model, response.token_ids, response.prompt_tokens, response.context_length), start)


def text(model: str, response: tokenize_pb2.DetokenizeResponse, start: int) -> str:
    """Return the answer with the text of tokens, under both names that clients read."""
    return _timed({"model": model, "content": response.text, "text": response.text}, start)


def _check_model(body: Body) -> None:
    if not body["model"]:
        raise RestError(400, "model is required")


def _tokens(model: str, ids: Any, count: int, context_length: int) -> dict[str, Any]:  # noqa: ANN401 - protobuf's list
    out = {"model": model, "tokens": list(ids), "count": count}
    return out | ({"context_length": context_length} if context_length else {})


def _piece(raw: bytes) -> str | list[int]:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return list(raw)


def _timed(out: dict[str, Any], start: int) -> str:
    return gojson.dumps(out | {"total_duration": max(time.time_ns() - start, 1)})
