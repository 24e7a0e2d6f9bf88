"""Lines of the files of a batch: each request becomes one of the core's, and each result becomes a line.

What the answer repeats of its request travels as the item's `client_data`: the model, the encoding of vectors, and for
/v1/responses the whole body.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from puna.go import json as gojson
from puna.go.json_scanner import BodyError, Document, EmptyBodyError, parse
from puna_client.v1 import batch_pb2
from puna_rest.bodies import openai
from puna_rest.bodies.batches import KEPT, LINE
from puna_rest.bodies.responses import RESPONSES
from puna_rest.errors import RestError, failure, item_failure
from puna_rest.gobody.decoder import decode
from puna_rest.gobody.kinds import Struct
from puna_rest.translate import cloud, search
from puna_rest.translate.openai import chat_answer, chat_request, completions, embeddings
from puna_rest.translate.options import Body
from puna_rest.translate.parts import full_answer
from puna_rest.translate.responses import answer as responses_answer
from puna_rest.translate.responses import request as responses_request

Resolve = Callable[[Sequence[Mapping[str, Any]]], Sequence[Mapping[str, Any]]]
"""Replaces references to the items of earlier answers."""
Result = batch_pb2.StreamBatchResultsResponse
_SPACE: Final = " \t\r\n"
EXPIRED: Final = "BATCH_EXPIRED"


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """One of the routes that a batch may name."""

    kind: Struct
    put: Callable[[batch_pb2.BatchItem, Document, Body, Resolve], None]
    """Put the core's request into the item. Raises RestError."""
    kept: tuple[str, ...]
    """Fields of the body that the answer needs; empty: all."""
    answer: Callable[[Document, Body, Result, str, int], str]
    """Return the JSON of the answer, given its id's last part and its time in seconds since 1970."""


def _put_chat(item: batch_pb2.BatchItem, document: Document, body: Body, _: Resolve) -> None:
    chat_request.check_messages(body)
    item.chat.CopyFrom(chat_request.request(document, body, time.time_ns()))


def _put_completion(item: batch_pb2.BatchItem, document: Document, body: Body, _: Resolve) -> None:
    item.generate.CopyFrom(completions.request(document, body, time.time_ns()))


def _put_embeddings(item: batch_pb2.BatchItem, _: Document, body: Body, __: Resolve) -> None:
    item.embed.CopyFrom(embeddings.request(body, time.time_ns()))


def _put_response(item: batch_pb2.BatchItem, document: Document, body: Body, resolve: Resolve) -> None:
    resolved = {**body, "input": {**body["input"], "items": resolve(body["input"]["items"])}}
    item.chat.CopyFrom(responses_request.request(document, resolved, time.time_ns()))


def _chat(_: Document, body: Body, result: Result, id_: str, created: int) -> str:
    found = chat_answer.completion(body["model"], result.chat)
    return gojson.dumps({**found, "id": f"chatcmpl-{id_}", "created": created})


def _completion(_: Document, body: Body, result: Result, id_: str, created: int) -> str:
    found = completions.completion(body["model"], result.generate)
    return gojson.dumps({**found, "id": f"cmpl-{id_}", "created": created})


def _embeddings(_: Document, body: Body, result: Result, _id: str, _created: int) -> str:
    return embeddings.answer(body, result.embed)


def _response(document: Document, body: Body, result: Result, id_: str, created: int) -> str:
    part = full_answer(result.chat)
    if responses_request.has_web_search(body):
        search.refuse(part.tool_calls)
    found = responses_answer.full_answer(document, body, part)
    return gojson.dumps({**found, "id": f"resp_{id_}", "created_at": created})


ENDPOINTS: Final = {
    "/v1/chat/completions": _Endpoint(openai.CHAT_COMPLETION, _put_chat, ("model",), _chat),
    "/v1/completions": _Endpoint(openai.COMPLETION, _put_completion, ("model",), _completion),
    "/v1/embeddings": _Endpoint(openai.EMBEDDINGS, _put_embeddings, ("model", "encoding_format"), _embeddings),
    "/v1/responses": _Endpoint(RESPONSES, _put_response, (), _response),
}
"""The routes whose requests a batch may hold."""


def item(line: bytes, endpoint: str, most_values: int, resolve: Resolve) -> batch_pb2.BatchItem:
    """Return the request of a line. `most_values`: JSON values that it may have. Raises RestError."""
    try:
        _, fields = _parsed(line, LINE, most_values)
        if fields["method"] != "POST":
            raise RestError(400, "method must be POST")
        if fields["url"] != endpoint:
            raise RestError(400, f"url must be {endpoint}, the endpoint of the batch")
        if not fields["body"]:
            raise RestError(400, "body is missing")
        route = ENDPOINTS[endpoint]
        document, body = _parsed(fields["body"].encode(), route.kind, most_values)
    except EmptyBodyError:
        raise RestError(400, "body is empty") from None
    except BodyError as error:
        raise RestError(400, str(error)) from None
    if cloud.names_cloud_model(document):
        raise RestError(403, cloud.REFUSED)
    kept = {name: body[name] for name in route.kept}
    text = gojson.dumps(kept) if kept else fields["body"]
    made = batch_pb2.BatchItem(
        custom_id=fields["custom_id"], client_data=f'{{"url":{gojson.string(endpoint)},"body":{text}}}'.encode()
    )
    route.put(made, document, body, resolve)
    return made


def line(batch_id: str, result: Result) -> str:
    """Return a result as a line of the output file, or of the error file."""
    id_ = f"{batch_id.removeprefix('batch_')[:16]}{result.number:08x}"
    if result.HasField("error"):
        failed = item_failure(result.error)
        if result.error.reason == EXPIRED:
            error = gojson.dumps({"code": "batch_expired", "message": failed.text})
            return _line(id_, result.custom_id, "null", error)
        return _line(id_, result.custom_id, _answer(id_, failed.status, gojson.dumps(chat_answer.error(failed))))
    _, kept = _parsed(result.client_data, KEPT)
    route = ENDPOINTS[kept["url"]]
    document, body = _parsed(kept["body"].encode(), route.kind)
    try:
        status, text = 200, route.answer(document, body, result, id_, result.complete_time.seconds)
    except RestError as error:
        # The model calls for a search, which fails here as it does on the route.
        failed = failure(error)
        status, text = failed.status, gojson.dumps(chat_answer.error(failed))
    return _line(id_, result.custom_id, _answer(id_, status, text))


def _answer(id_: str, status: int, body: str) -> str:
    return f'{{"status_code":{status},"request_id":"req_{id_}","body":{body}}}'


def _line(id_: str, custom_id: str, response: str, error: str = "null") -> str:
    custom = gojson.string(custom_id)
    return f'{{"id":"batch_req_{id_}","custom_id":{custom},"response":{response},"error":{error}}}\n'


def _parsed(text: bytes, kind: Struct, most_values: int = 1 << 62) -> tuple[Document, Body]:
    """Parse and decode a text that holds exactly one value. Raises BodyError."""
    document = parse(text, most_values)
    if document.text[document.root.end :].strip(_SPACE):
        raise BodyError("there is more than one JSON value")
    fields = decode(document, kind)
    assert isinstance(fields, Mapping)
    return document, fields
