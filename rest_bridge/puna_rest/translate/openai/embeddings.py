"""/v1/embeddings."""

import base64

from puna.go import json as gojson
from puna.go.json_scanner import Node
from puna.limits import clamp_int32
from puna_client.v1 import embed_pb2, options_pb2
from puna_rest.errors import RestError
from puna_rest.translate.embed import inputs, packed
from puna_rest.translate.options import Body, moment


def request(body: Body, start: int) -> embed_pb2.EmbedRequest:
    """Return the EmbedRequest of a body. `start`: arrival in nanoseconds since 1970. Raises RestError."""
    wanted = body["encoding_format"]
    if wanted and wanted.lower() not in ("float", "base64"):
        raise RestError(400, f"Invalid value for 'encoding_format' = {wanted}. Supported values: ['float', 'base64'].")
    return embed_pb2.EmbedRequest(
        model=body["model"],
        inputs=_inputs(body["input"]),
        truncate=True,
        dimensions=max(0, clamp_int32(body["dimensions"])),
        encoding=embed_pb2.VECTOR_ENCODING_FLOAT32_LE,
        options=options_pb2.RequestOptions(start_time=moment(start)),
    )


def answer(body: Body, response: embed_pb2.EmbedResponse) -> str:
    """Return the vectors, as numbers or as base64."""
    form = _base64 if body["encoding_format"].lower() == "base64" else gojson.floats32
    data = ",".join(
        [
            f'{{"object":"embedding","embedding":{form(packed(vector))},"index":{index}}}'
            for index, vector in enumerate(response.vectors)
        ]
    )
    count = response.usage.prompt_tokens
    rest = gojson.dumps({"model": body["model"], "usage": {"prompt_tokens": count, "total_tokens": count}})
    return f'{{"object":"list","data":[{data}],{rest[1:]}'


def _inputs(node: Node | None) -> list[str]:
    if node is not None and node.kind == "string":
        return [node.value]
    if node is None or (node.kind == "array" and not node.value):
        raise RestError(400, "invalid input")
    try:
        return inputs(node)
    except RestError as error:
        raise RestError(error.status, str(error), reason="INVALID_REQUEST") from None


def _base64(floats: bytes) -> str:
    return '"' + base64.b64encode(floats).decode() + '"'
