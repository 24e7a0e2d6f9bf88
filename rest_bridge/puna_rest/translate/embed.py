"""/api/embed and /api/embeddings."""

import math
import struct
from array import array
from collections.abc import Sequence

from puna.go import json as gojson
from puna.go.json_scanner import Document, Node
from puna.limits import clamp_int32
from puna_client.v1 import embed_pb2
from puna_rest.errors import RestError
from puna_rest.times import nanoseconds
from puna_rest.translate.options import Body, model_options


def request(document: Document, body: Body, start: int) -> embed_pb2.EmbedRequest:
    """Return the EmbedRequest of a body of /api/embed. RestError: an input is not a text."""
    return embed_pb2.EmbedRequest(
        model=body["model"],
        inputs=inputs(body["input"]),
        truncate=body["truncate"] is not False,
        # Ollama ignores negative dimensions.
        dimensions=max(0, clamp_int32(body["dimensions"])),
        # Packed vectors are handed to the encoder as they are, without a Python object per number.
        encoding=embed_pb2.VECTOR_ENCODING_FLOAT32_LE,
        options=model_options(document, body, start),
    )


def legacy_request(document: Document, body: Body, start: int) -> embed_pb2.EmbedRequest:
    """Return the EmbedRequest of a body of /api/embeddings. The vector is normalized in legacy_answer."""
    return embed_pb2.EmbedRequest(
        model=body["model"],
        inputs=[body["prompt"]] if body["prompt"] else [],
        unnormalized=True,
        encoding=embed_pb2.VECTOR_ENCODING_FLOAT32_LE,
        options=model_options(document, body, start),
    )


def inputs(node: Node | None) -> list[str]:
    """Return the texts of `input`: one text or a list. An empty text alone gives no input. Raises RestError."""
    if node is None:
        return []
    if node.kind == "string":
        return [node.value] if node.value else []
    if node.kind == "array" and all(each.kind == "string" for each in node.value):
        return [each.value for each in node.value]
    raise RestError(400, "invalid input type")


def answer(model: str, response: embed_pb2.EmbedResponse) -> str:
    """Return the answer of /api/embed."""
    vectors = ",".join([gojson.floats32(packed(each)) for each in response.vectors])
    out = f'{{"model":{gojson.string(model)},"embeddings":[{vectors}]'
    if response.vectors:
        for name, value in (
            ("total_duration", nanoseconds(response.timings.total)),
            ("load_duration", nanoseconds(response.timings.load)),
            ("prompt_eval_count", response.usage.prompt_tokens),
        ):
            if value:
                out += f',"{name}":{value}'
    return out + "}"


def legacy_answer(response: embed_pb2.EmbedResponse) -> str:
    """Return the answer of /api/embeddings, whose numbers have all digits of float64.

    The vector is normalized like in Ollama's engine: summed in 64 bits, multiplied in 32 bits. For /api/embed, Ollama's
    server normalizes once more, which changes the last digits; this route lacks the second step.
    """
    values = "".join([gojson.floats64(_of_length_1(unpack(vector))) for vector in response.vectors[:1]])
    return '{"embedding":' + (values or "[]") + "}"


def _of_length_1(vector: Sequence[float]) -> Sequence[float]:
    length = math.sqrt(sum(each * each for each in vector))
    # A factor of 32 bits, as in the engine: a division in 64 bits would give other last digits.
    factor = array("f", (1.0 / length if length else 0.0,))[0]
    return array("f", (each * factor for each in vector))


def packed(vector: embed_pb2.Vector) -> bytes:
    """Return a vector as little-endian 32-bit floats."""
    return vector.packed or struct.pack(f"<{len(vector.values)}f", *vector.values)


def unpack(vector: embed_pb2.Vector) -> Sequence[float]:
    """Return the values of a packed vector."""
    if not vector.packed:
        return vector.values
    return struct.unpack(f"<{len(vector.packed) // 4}f", vector.packed)
