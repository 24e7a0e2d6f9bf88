import json
import re

import grpc
import pytest

from puna_client.v1 import options_pb2, tokenize_pb2


async def asked(client, path, body):
    async with client.post(path, data=json.dumps(body)) as response:
        return response.status, re.sub(r'"total_duration":[1-9]\d*', '"total_duration":N', await response.text())


@pytest.fixture
def tokenized(core):
    core.script("Tokenize", tokenize_pb2.TokenizeResponse(token_ids=[7, 8], context_length=64))


@pytest.mark.parametrize("name", ["content", "text", "prompt"])
async def test_a_text_has_three_names(core, client, tokenized, name):
    status, text = await asked(client, "/api/tokenize", {"model": "m", name: "hello", "keep_alive": "5m"})
    assert (status, text) == (
        200,
        '{"model":"m","tokens":[7,8],"count":2,"context_length":64,"total_duration":N}',
    )
    (request,) = core.requests
    assert (request.text, request.add_special, request.parse_special) == ("hello", False, True)
    assert request.options.keep_alive.duration.seconds == 300


async def test_special_tokens_and_pieces(core, client):
    core.script("Tokenize", tokenize_pb2.TokenizeResponse(token_ids=[7, 8], pieces=[b"a", b"\xc3"]))
    body = {"model": "m", "content": "aé", "add_special": True, "parse_special": False, "with_pieces": True}
    _, text = await asked(client, "/api/tokenize", body)
    assert json.loads(text.replace("N", "0"))["pieces"] == ["a", [195]]
    (request,) = core.requests
    assert (request.add_special, request.parse_special, request.with_pieces) == (True, False, True)


async def test_a_conversation(core, client):
    core.script(
        "CountTokens", tokenize_pb2.CountTokensResponse(prompt_tokens=3, context_length=64, token_ids=[1, 2, 3])
    )
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "think": False,
        "options": {"num_ctx": 64},
    }
    status, text = await asked(client, "/api/tokenize", body)
    assert (status, text) == (
        200,
        '{"model":"m","tokens":[1,2,3],"count":3,"context_length":64,"total_duration":N}',
    )
    (request,) = core.requests
    assert (request.chat.messages[0].content, request.chat.tools[0].name) == ("hi", "f")
    assert request.chat.options.truncate
    assert request.chat.options.thinking == options_pb2.THINKING_LEVEL_OFF
    assert json.loads(request.chat.options.options_json) == {"num_ctx": 64}


async def test_the_tokens_of_images_are_counted_and_not_listed(core, client):
    core.script("CountTokens", tokenize_pb2.CountTokensResponse(prompt_tokens=300))
    body = {"model": "m", "messages": [{"role": "user", "content": "hi", "images": ["aGk="]}]}
    assert await asked(client, "/api/tokenize", body) == (
        200,
        '{"model":"m","tokens":[],"count":300,"total_duration":N}',
    )
    assert core.requests[0].chat.messages[0].media[0].data == b"hi"


async def test_detokenize(core, client):
    core.script("Detokenize", tokenize_pb2.DetokenizeResponse(text="hé", raw="hé".encode()))
    body = {"model": "m", "tokens": [7, 8], "skip_special": True}
    assert await asked(client, "/api/detokenize", body) == (
        200,
        '{"model":"m","content":"hé","text":"hé","total_duration":N}',
    )
    (request,) = core.requests
    assert (list(request.token_ids), request.skip_special) == ([7, 8], True)


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("tokenize", {"content": "a"}, "model is required"),
        ("tokenize", {"model": "m", "content": "a", "text": "b"}, "send one of them"),
        ("tokenize", {"model": "m", "content": "a", "messages": [{"role": "user"}]}, "either a text or messages"),
        ("tokenize", {"model": "m", "messages": []}, "messages is empty"),
        ("tokenize", {"model": "m", "content": "a", "tools": [{"type": "function"}]}, "tools need messages"),
        ("tokenize", {"model": "m", "content": 5}, "cannot unmarshal number"),
        ("detokenize", {"tokens": [1]}, "model is required"),
        ("detokenize", {"model": "m", "tokens": [-1]}, "token -1 is not"),
        ("detokenize", {"model": "m", "tokens": [2**40]}, "is not in the vocabulary"),
        ("detokenize", {"model": "m", "tokens": "abc"}, "cannot unmarshal string"),
    ],
)
async def test_bodies_that_are_refused(core, client, path, body, text):
    status, answer = await asked(client, f"/api/{path}", body)
    assert status == 400
    assert text in json.loads(answer)["error"]
    assert core.requests == []


async def test_an_error_of_the_core(core, client, fail):
    core.script("Tokenize", fail(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "model 'm' not found"))
    assert await asked(client, "/api/tokenize", {"model": "m", "text": "a"}) == (
        404,
        '{"error":"model \'m\' not found"}',
    )
