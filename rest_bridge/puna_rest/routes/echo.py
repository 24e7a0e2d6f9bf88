"""/v1/completions with `echo` and `logprobs`."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from puna.go import json as gojson
from puna.go.json_scanner import Document
from puna.offload import offload_if_heavy, weight_of_message
from puna_client.v1 import generate_pb2, tokenize_pb2, usage_pb2
from puna_rest import answers
from puna_rest.core import CORE, metadata
from puna_rest.translate.openai import echo


async def completion(request: web.Request, document: Document, body: Mapping[str, Any]) -> web.StreamResponse:
    """Score the prompts of a body, and continue them."""
    start = time.time_ns()
    core = request.app[CORE]
    prompts = await offload_if_heavy(document.weight, echo.prompts, document, body)
    texts: list[str] = []
    tokens: list[Sequence[int]] = []
    for prompt in prompts:
        text, ids = await _tokens(request, body["model"], prompt)
        texts.append(text)
        tokens.append(ids)
    scores = await core.rank.Score(echo.score_request(body, tokens, start), metadata=metadata())
    scored = []
    for text, ids, result in zip(texts, tokens, scores.results, strict=True):
        answer = generate_pb2.GenerateResponse()
        if (message := echo.generate_request(document, body, ids, start)) is not None:
            answer = await core.generate.Generate(message, metadata=metadata())
        first = await core.tokenize.Detokenize(
            tokenize_pb2.DetokenizeRequest(model=body["model"], token_ids=ids[:1]), metadata=metadata()
        )
        entry = usage_pb2.TokenLogprob(text=first.text, raw=first.raw, token_id=ids[0])
        scored.append(echo.Scored(text, entry, result, answer))
    count = sum(map(len, tokens))
    return answers.line(request, await offload_if_heavy(weight_of_message(scores), _written, body, scored, count))


async def _tokens(request: web.Request, model: str, prompt: str | list[int]) -> tuple[str, Sequence[int]]:
    """Return the text and the tokens of a prompt."""
    service = request.app[CORE].tokenize
    if isinstance(prompt, str):
        tokenized = await service.Tokenize(tokenize_pb2.TokenizeRequest(model=model, text=prompt), metadata=metadata())
        return prompt, tokenized.token_ids
    message = tokenize_pb2.DetokenizeRequest(model=model, token_ids=prompt, skip_special=True)
    return (await service.Detokenize(message, metadata=metadata())).text, prompt


def _written(body: Mapping[str, Any], scored: list[echo.Scored], count: int) -> str:
    return gojson.dumps(echo.completion(body["model"], scored, count))
