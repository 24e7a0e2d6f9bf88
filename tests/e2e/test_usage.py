"""The counts of tokens are the same on every face, cached ones included, with the real engine."""

import json
import urllib.request

import grpc
import pytest

from puna_client.v1 import chat_pb2, chat_pb2_grpc, generate_pb2, generate_pb2_grpc, message_pb2, options_pb2

QUESTION = "How many tokens of this question are in the cache? " * 6
TURN = [{"role": "user", "content": QUESTION}]
CHATS = {
    "/v1/chat/completions": {"messages": TURN, "max_tokens": 4, "stream_options": {"include_usage": True}},
    "/v1/responses": {"input": QUESTION, "max_output_tokens": 4},
    "/v1/messages": {"messages": TURN, "max_tokens": 4},
}


@pytest.fixture(scope="module")
def usages(server):
    """The usage of the same chat and the same completion over gRPC, when the prompt is cached."""
    options = options_pb2.RequestOptions(sampling=options_pb2.SamplingOptions(max_output_tokens=4))
    message = message_pb2.ChatMessage(role="user", content=QUESTION)
    with grpc.insecure_channel(server.grpc) as channel:
        chat, generate = chat_pb2_grpc.ChatServiceStub(channel), generate_pb2_grpc.GenerateServiceStub(channel)
        for _ in range(2):
            chatted = chat.Chat(chat_pb2.ChatRequest(model="llamita", messages=[message], options=options), timeout=60)
        for _ in range(2):
            request = generate_pb2.GenerateRequest(model="llamita", text=QUESTION, options=options)
            completed = generate.Generate(request, timeout=60)
    return chatted.finish.usage, completed.finish.usage


def asked(server, path, body, headers):
    """Ask; return the last usage of the answer."""
    request = urllib.request.Request(
        server.url + path,
        json.dumps({"model": "llamita"} | body).encode(),
        {"Content-Type": "application/json"} | headers,
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = answer.read().decode()
    if not body.get("stream"):
        return json.loads(text)["usage"]
    events = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: {")]
    found = [event.get("usage") or event.get("response", {}).get("usage") for event in events]
    return [usage for usage in found if usage][-1]


def counts(path, usage):
    """Return prompt tokens, cached ones among them, and output tokens."""
    if path == "/v1/messages":
        cached = usage["cache_read_input_tokens"]
        return usage["input_tokens"] + cached, cached, usage["output_tokens"]
    if path == "/v1/responses":
        cached = usage["input_tokens_details"]["cached_tokens"]
        return usage["input_tokens"], cached, usage["output_tokens"]
    return usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"], usage["completion_tokens"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", CHATS)
def test_a_chat(server, usages, path, stream):
    grpc_usage, _ = usages
    assert grpc_usage.cached_prompt_tokens > 30
    usage = asked(server, path, CHATS[path] | {"stream": stream}, {"Authorization": "Bearer x"})
    expected = grpc_usage.prompt_tokens, grpc_usage.cached_prompt_tokens, grpc_usage.output_tokens
    assert counts(path, usage) == expected


@pytest.mark.parametrize("stream", [False, True])
def test_a_completion(server, usages, stream):
    _, grpc_usage = usages
    body = {"prompt": QUESTION, "max_tokens": 4, "stream": stream, "stream_options": {"include_usage": True}}
    usage = asked(server, "/v1/completions", body, {"Authorization": "Bearer x"})
    expected = grpc_usage.prompt_tokens, grpc_usage.cached_prompt_tokens, grpc_usage.output_tokens
    assert counts("/v1/completions", usage) == expected


def test_an_answer_that_repeats_itself(server, usages):
    """The server ends it before the backend has counted anything."""
    _, grpc_usage = usages
    word = server.json("/api/tokenize", {"model": "llamita", "text": "weather"})["tokens"][-1]
    options = options_pb2.RequestOptions(sampling=options_pb2.SamplingOptions(max_output_tokens=200))
    options.sampling.logit_bias[word] = 1000
    with grpc.insecure_channel(server.grpc) as channel:
        request = generate_pb2.GenerateRequest(model="llamita", text=QUESTION, options=options)
        usage = generate_pb2_grpc.GenerateServiceStub(channel).Generate(request, timeout=60).finish.usage
    assert usage.output_tokens < 40
    assert usage.prompt_tokens == grpc_usage.prompt_tokens
    assert usage.cached_prompt_tokens == grpc_usage.cached_prompt_tokens > 30


def test_ollama_s_own_api_counts_the_whole_prompt(server, usages):
    grpc_usage, _ = usages
    answer = server.json(
        "/api/chat", {"model": "llamita", "messages": TURN, "stream": False, "options": {"num_predict": 4}}
    )
    assert (answer["prompt_eval_count"], answer["eval_count"]) == (grpc_usage.prompt_tokens, grpc_usage.output_tokens)
    assert not [name for name in answer if "cache" in name]
