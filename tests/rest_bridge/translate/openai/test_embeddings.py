import base64
import json
import struct

import pytest
from tests.rest_bridge.decoding import decoded

from puna_client.v1 import embed_pb2, usage_pb2
from puna_rest.bodies import openai
from puna_rest.errors import RestError
from puna_rest.translate.openai import embeddings


def request(**body):
    return embeddings.request(decoded(openai.EMBEDDINGS, {"model": "m"} | body)[1], 0)


@pytest.mark.parametrize(("given", "texts"), [("a", ["a"]), ("", [""]), (["a", "b"], ["a", "b"])])
def test_inputs(given, texts):
    assert list(request(input=given).inputs) == texts


@pytest.mark.parametrize(
    ("body", "text", "reason"),
    [
        ({}, "invalid input", ""),
        ({"input": None}, "invalid input", ""),
        ({"input": []}, "invalid input", ""),
        ({"input": [1]}, "invalid input type", "INVALID_REQUEST"),
        ({"input": 3}, "invalid input type", "INVALID_REQUEST"),
        (
            {"input": "a", "encoding_format": "int8"},
            "Invalid value for 'encoding_format' = int8. Supported values: ['float', 'base64'].",
            "",
        ),
    ],
)
def test_refusals(body, text, reason):
    with pytest.raises(RestError) as caught:
        request(**body)
    assert (caught.value.status, str(caught.value), caught.value.reason) == (400, text, reason)


@pytest.mark.parametrize("form", ["", "float", "Base64"])
def test_vectors_as_numbers_or_base64(form):
    raw = struct.pack("<2f", 0.1, -2)
    body = decoded(openai.EMBEDDINGS, {"model": "m", "input": "a", "encoding_format": form})[1]
    vectors = [embed_pb2.Vector(packed=raw), embed_pb2.Vector(values=[1])]
    answer = json.loads(
        embeddings.answer(body, embed_pb2.EmbedResponse(vectors=vectors, usage=usage_pb2.Usage(prompt_tokens=4)))
    )
    shown = base64.b64encode(raw).decode() if form == "Base64" else [0.1, -2]
    assert answer["data"][0] == {"object": "embedding", "embedding": shown, "index": 0}
    assert answer["data"][1]["index"] == 1
    assert answer["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    assert (answer["object"], answer["model"]) == ("list", "m")
