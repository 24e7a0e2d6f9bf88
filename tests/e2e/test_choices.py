"""Several answers to one request (`n`), by gRPC and by OpenAI's routes, with the real engine."""

import json
import urllib.request
import uuid

import grpc
import pytest
from tests.e2e.server import MODELS, wait_until

from puna_client.v1 import (
    chat_pb2,
    chat_pb2_grpc,
    generate_pb2,
    generate_pb2_grpc,
    message_pb2,
    options_pb2,
    server_pb2,
    server_pb2_grpc,
)

QUESTION = "Invent something and tell me of it as JSON. " * 5
SEED, N = 1, 3


@pytest.fixture(scope="module")
def channel(server):
    # Of random weights: it says something else for every seed.
    server.upload("wanderer", MODELS / "wanderer.gguf")
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


def options(seed=SEED, **fields):
    """Return options of a request that shares its cache with no other one."""
    sampling = options_pb2.SamplingOptions(temperature=1, top_p=1, seed=seed, max_output_tokens=24)
    return options_pb2.RequestOptions(sampling=sampling, cache_salt=uuid.uuid4().hex, **fields)


def chat(n=None, **fields):
    message = message_pb2.ChatMessage(role="user", content=QUESTION)
    return chat_pb2.ChatRequest(model="llamita", messages=[message], options=options(**fields), n=n)


def prompted(model, n=None, **fields):
    return generate_pb2.GenerateRequest(model=model, text=QUESTION, options=options(**fields), n=n)


def test_answer_i_is_that_of_a_single_request_with_the_seed_plus_i(channel):
    stub = chat_pb2_grpc.ChatServiceStub(channel)
    choices = stub.Chat(chat(N), timeout=60).choices
    singles = [stub.Chat(chat(seed=SEED + i), timeout=60) for i in range(N)]
    texts = [(each.message.thinking, each.message.content) for each in choices]
    assert texts == [(each.message.thinking, each.message.content) for each in singles]
    assert len(set(texts)) > 1
    assert [each.finish.choice for each in choices] == list(range(N))
    assert [each.finish.reason for each in choices] == [each.finish.reason for each in singles]
    assert [each.finish.output_tokens for each in choices] == [each.finish.usage.output_tokens for each in singles]


def test_the_same_with_a_memory_that_cannot_be_taken_back(channel):
    stub = generate_pb2_grpc.GenerateServiceStub(channel)
    choices = stub.Generate(prompted("wanderer", N), timeout=60).choices
    singles = [stub.Generate(prompted("wanderer", seed=SEED + i), timeout=60) for i in range(N)]
    assert [each.text for each in choices] == [each.text for each in singles]
    assert len({each.text for each in choices}) == N


def test_the_prompt_is_counted_once(channel):
    stub = chat_pb2_grpc.ChatServiceStub(channel)
    usage = stub.Chat(chat(n=N), timeout=60).finish.usage
    single = stub.Chat(chat(), timeout=60).finish.usage
    assert (usage.prompt_tokens, usage.cached_prompt_tokens) == (single.prompt_tokens, 0)
    assert usage.output_tokens > single.output_tokens


def test_a_stream_carries_the_index(channel):
    stub = generate_pb2_grpc.GenerateServiceStub(channel)
    request = prompted("llamita", N)
    texts, ends = [""] * N, []
    for part in stub.StreamGenerate(request, timeout=60):
        for delta in part.deltas:
            assert delta.choice not in [end.choice for end in ends]
            texts[delta.choice] += delta.thinking + delta.text
        ends += part.choice_finishes
        done = part.done
    assert sorted(end.choice for end in ends) == list(range(N))
    assert done.finish.usage.output_tokens == sum(end.output_tokens for end in ends)
    assert not done.HasField("context")
    request.options.CopyFrom(options())
    full = stub.Generate(request, timeout=60)
    assert texts == [each.thinking + each.text for each in full.choices]


@pytest.mark.parametrize("n", [0, -1, 33, 2**31 - 1])
def test_numbers_out_of_bounds_are_refused(channel, n):
    with pytest.raises(grpc.RpcError) as refused:
        chat_pb2_grpc.ChatServiceStub(channel).Chat(chat(n=n), timeout=60)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "n: " in refused.value.details()


def test_a_cancel_ends_all_answers(channel):
    stub = generate_pb2_grpc.GenerateServiceStub(channel)
    info = server_pb2_grpc.ServerServiceStub(channel)
    request = generate_pb2.GenerateRequest(model="scripted", text="endless", raw=True, options=options(), n=N)
    request.options.sampling.max_output_tokens = -1
    request.options.sampling.logit_bias[2] = -1000
    call = stub.StreamGenerate(request, timeout=60)
    next(call)
    call.cancel()
    wait_until(lambda: not info.ListRequests(server_pb2.ListRequestsRequest(), timeout=10).requests)
    # All slots are free again: as many answers as there are slots come at once.
    assert len(stub.Generate(generate_pb2.GenerateRequest(model="scripted", text="a", n=4), timeout=60).choices) == 4


def test_openai_chat(server, channel):
    body = {"model": "llamita", "messages": [{"role": "user", "content": QUESTION}], "n": N, "seed": 5}
    body |= {"max_tokens": 24, "temperature": 1}
    answer = server.json("/v1/chat/completions", body)
    assert [each["index"] for each in answer["choices"]] == list(range(N))
    streamed = stream(server, "/v1/chat/completions", body | {"stream_options": {"include_usage": True}})
    *chunks, last = streamed
    for index, choice in enumerate(answer["choices"]):
        own = [each for chunk in chunks for each in chunk["choices"] if each["index"] == index]
        assert own[0]["delta"]["role"] == "assistant"
        assert "".join(each["delta"].get("content", "") for each in own) == choice["message"]["content"]
        thought = "".join(each["delta"].get("reasoning", "") for each in own)
        assert thought == choice["message"].get("reasoning", "")
        assert [each["finish_reason"] for each in own if each["finish_reason"]] == [choice["finish_reason"]]
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == answer["usage"]["completion_tokens"]
    assert last["usage"]["prompt_tokens"] == answer["usage"]["prompt_tokens"]


def test_openai_completions(server):
    body = {"model": "llamita", "prompt": QUESTION, "n": 2, "seed": 5, "max_tokens": 16, "temperature": 1}
    answer = server.json("/v1/completions", body)
    assert [each["index"] for each in answer["choices"]] == [0, 1]
    chunks = stream(server, "/v1/completions", body)
    for index, choice in enumerate(answer["choices"]):
        own = [each for chunk in chunks for each in chunk["choices"] if each["index"] == index]
        assert "".join(each["text"] for each in own) == choice["text"]
        assert [each["finish_reason"] for each in own if each["finish_reason"]] == [choice["finish_reason"]]


@pytest.mark.parametrize("value", ["2", 1.5, None, True, []])
def test_values_that_are_no_integers_are_ignored_as_ollama_ignores_all(server, value):
    body = {"model": "llamita", "messages": [{"role": "user", "content": "Hi"}], "n": value, "max_tokens": 2}
    assert len(server.json("/v1/chat/completions", body)["choices"]) == 1


def test_openai_refuses_numbers_out_of_bounds(server):
    body = {"model": "llamita", "messages": [{"role": "user", "content": "Hi"}], "n": 0, "max_tokens": 2}
    status, _, text = server.ask("/v1/chat/completions", body)
    assert (status, json.loads(text)["error"]["message"]) == (400, "n: 0 is not at least 1")


def stream(server, path, body):
    """Return the chunks of a stream of OpenAI's."""
    data = json.dumps(body | {"stream": True}).encode()
    with urllib.request.urlopen(urllib.request.Request(server.url + path, data), timeout=60) as answer:
        events = [line.removeprefix(b"data: ").strip() for line in answer if line.startswith(b"data: ")]
    assert events[-1] == b"[DONE]"
    return [json.loads(event) for event in events[:-1]]
