import struct

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from puna_client.v1 import embed_pb2, models_pb2, usage_pb2


def answer(*vectors):
    return embed_pb2.EmbedResponse(
        vectors=[embed_pb2.Vector(packed=struct.pack(f"<{len(each)}f", *each)) for each in vectors],
        usage=usage_pb2.Usage(prompt_tokens=3),
        timings=usage_pb2.Timings(total=Duration(nanos=9), load=Duration(nanos=4)),
    )


async def asked(client, path, body):
    async with client.post(path, json=body) as response:
        return response.status, await response.text()


async def test_vectors_print_with_the_digits_of_32_bits(core, client):
    core.script("Embed", answer([0.1, -1e-7, 0.0, 1.0], [1 / 3]))
    assert await asked(client, "/api/embed", {"model": "M", "input": ["a", "b"]}) == (
        200,
        '{"model":"M","embeddings":[[0.1,-1e-7,0,1],[0.33333334]],'
        '"total_duration":9,"load_duration":4,"prompt_eval_count":3}',
    )
    request = core.requests[0]
    assert (list(request.inputs), request.truncate, request.unnormalized) == (["a", "b"], True, False)


async def test_the_older_form_prints_the_digits_of_64_bits(core, client):
    core.script("Embed", answer([0.3, -0.4]))
    body = {"model": "m", "prompt": "p"}
    text = '{"embedding":[0.6000000238418579,-0.800000011920929]}'
    assert await asked(client, "/api/embeddings", body) == (200, text)
    assert core.requests[0].unnormalized


@pytest.mark.parametrize("body", [{"input": ""}, {"input": []}, {"input": None}, {}])
async def test_nothing_to_embed_loads_the_model(core, client, body):
    core.script("Embed", embed_pb2.EmbedResponse(timings=usage_pb2.Timings(total=Duration(nanos=9))))
    assert await asked(client, "/api/embed", {"model": "m", **body}) == (200, '{"model":"m","embeddings":[]}')
    assert list(core.requests[0].inputs) == []


@pytest.mark.parametrize("value", [3, True, {"a": 1}, ["a", 3], [None], [["a"]]])
async def test_an_input_that_is_no_text(core, client, value):
    core.script("GetModel", models_pb2.GetModelResponse())
    answered = await asked(client, "/api/embed", {"model": "m", "input": value})
    assert answered == (400, '{"error":"invalid input type"}')


@pytest.mark.parametrize(
    ("reason", "status", "text"),
    [
        ("MODEL_REQUIRED", 404, "model '' not found"),
        ("INVALID_MODEL_NAME", 400, "as told"),
        ("CLOUD_DISABLED", 403, "ollama cloud is disabled: remote model is unavailable"),
        ("MODEL_NOT_FOUND", 400, "invalid input type"),
    ],
)
async def test_a_name_that_is_none_is_told_before_an_input_that_is_none(core, client, fail, reason, status, text):
    code = grpc.StatusCode.NOT_FOUND if reason == "MODEL_NOT_FOUND" else grpc.StatusCode.INVALID_ARGUMENT
    core.script("GetModel", fail(code, reason, "as told"))
    assert await asked(client, "/api/embed", {"input": 3}) == (status, f'{{"error":"{text}"}}')


async def test_what_the_model_says_is_a_500_in_the_older_form(core, client, fail):
    core.script("Embed", fail(grpc.StatusCode.UNIMPLEMENTED, "EMBEDDINGS_UNSUPPORTED", "no"))
    assert (await asked(client, "/api/embed", {"model": "m", "input": "a"}))[0] == 501
    assert (await asked(client, "/api/embeddings", {"model": "m", "prompt": "a"}))[0] == 500
    assert await asked(client, "/api/embeddings", {"prompt": "a"}) == (400, '{"error":"model is required"}')


async def test_openai_floats_and_base64(core, client):
    core.script("Embed", answer([0.1, 0.5]))
    body = {"model": "m", "input": ""}
    tail = '"model":"m","usage":{"prompt_tokens":3,"total_tokens":3}}\n'
    head = '{"object":"list","data":[{"object":"embedding","embedding":'
    assert await asked(client, "/v1/embeddings", body) == (200, head + '[0.1,0.5],"index":0}],' + tail)
    assert list(core.requests[0].inputs) == [""]
    text = (await asked(client, "/v1/embeddings", {**body, "encoding_format": "BASE64"}))[1]
    assert text == head + '"zczMPQAAAD8=","index":0}],' + tail


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "invalid input"),
        ({"input": []}, "invalid input"),
        ({"input": "a", "encoding_format": "hex"}, "Invalid value for 'encoding_format' = hex. "),
        ({"input": [3]}, "invalid input type"),
    ],
)
async def test_openai_refusals(core, client, fail, body, text):
    core.script("GetModel", fail(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "as told"))
    status, answered = await asked(client, "/v1/embeddings", body)
    assert status == 400
    assert answered.startswith('{"error":{"message":"' + text)


async def test_openai_tells_a_name_that_is_none_before_a_wrong_input(core, client, fail):
    core.script("GetModel", fail(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MODEL_NAME", "invalid model name"))
    status, answered = await asked(client, "/v1/embeddings", {"model": "a b", "input": 3})
    assert status == 400
    assert answered.startswith('{"error":{"message":"invalid model name"')
