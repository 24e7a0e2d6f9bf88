"""The backend in a whole server: the faces of Puna in front of the misbehaving upstream, and of another Puna."""

import asyncio
import json
import threading
import urllib.request

import grpc
import pytest
from tests.e2e.server import serving, wait_until
from tests.plugins.openai.front import KEY
from tests.plugins.openai.front import serving as serving_front

from puna_client.v1 import (
    chat_pb2,
    chat_pb2_grpc,
    message_pb2,
    models_pb2,
    models_pb2_grpc,
    options_pb2,
    tokenize_pb2,
    tokenize_pb2_grpc,
)

HELLO = {"messages": [{"role": "user", "content": "hi"}]}
MODELS = (
    *("hello", "tools", "logprobs", "endless", "reasoning"),
    *("fault:401", "fault:404", "fault:429", "fault:cut", "stalled"),
)
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def front():
    """The misbehaving upstream, in a thread of its own."""
    ready, ended = threading.Event(), asyncio.Event()
    found = []

    async def serve():
        async with serving_front() as front:
            found.append((front, asyncio.get_running_loop()))
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    front, loop = found[0]
    yield front
    loop.call_soon_threadsafe(ended.set)
    thread.join()


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Another Puna, with the demo models."""
    with serving(tmp_path_factory.mktemp("other") / "models") as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory, front, other):
    config = tmp_path_factory.mktemp("config")
    (config / "puna").mkdir()
    (config / "puna" / "config.toml").write_text(
        f"""
        [secrets]
        front = "{KEY}"

        [backends.openai.upstreams.front]
        base_url = "{front.url}"
        api_key = "front"
        retries = 0
        stall_timeout = 3
        models = ["a", "org/*"]

        [backends.openai.upstreams.other]
        base_url = "{other.url}/v1"
        dialect = "ollama"
        context_length = 2048

        [backends.openai.upstreams.down]
        base_url = "http://127.0.0.1:9/v1"
        """
    )
    with serving(tmp_path_factory.mktemp("home") / "models", XDG_CONFIG_HOME=str(config)) as running:
        for name in (
            "hello",
            "tools",
            "logprobs",
            "endless",
            "reasoning",
            "fault:401",
            "fault:404",
            "fault:429",
            "fault:cut",
            "stalled",
        ):
            body = {"model": name.replace(":", "-"), "backend": "openai", "upstream": f"front/{name}", "stream": False}
            assert running.json("/api/create", body) == {"status": "success"}
        yield running


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_chat_streams(server):
    _, _, text = server.ask("/api/chat", {"model": "hello"} | HELLO)
    *deltas, done = lines(text)
    assert [each["message"]["content"] for each in deltas] == ["Hel", "lo"]
    assert (done["done_reason"], done["prompt_eval_count"], done["eval_count"]) == ("stop", 11, 3)


TRACE = {
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "tracestate": "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7",
    "x-request-id": "client-7",
}


def test_the_trace_and_the_id_of_a_request_reach_the_upstream(server, front):
    body = json.dumps({"model": "hello", "stream": False} | HELLO).encode()
    asked = urllib.request.Request(f"{server.url}/api/chat", body, TRACE)
    with urllib.request.urlopen(asked, timeout=30) as answer:
        assert answer.headers["X-Request-Id"] == "client-7"
    assert {name: front.requests[-1][1][name] for name in TRACE} == TRACE
    sent = TRACE | {"x-request-id": "client-8"}
    with grpc.insecure_channel(server.grpc) as channel:
        request = chat_pb2.ChatRequest(model="hello", messages=[message_pb2.ChatMessage(role="user", content="hi")])
        chat_pb2_grpc.ChatServiceStub(channel).Chat(request, metadata=tuple(sent.items()), timeout=30)
    assert {name: front.requests[-1][1][name] for name in TRACE} == sent


def test_a_request_without_a_trace_starts_none(server, front):
    server.json("/api/chat", {"model": "hello", "stream": False} | HELLO)
    headers = front.requests[-1][1]
    assert headers["x-request-id"]
    assert not {"traceparent", "tracestate"} & {name.lower() for name in headers}


def test_generate_ends_without_a_context(server):
    answer = server.json("/api/generate", {"model": "hello", "prompt": "hi", "system": "Hm.", "stream": False})
    assert (answer["response"], answer["done_reason"]) == ("Hello", "stop")
    assert "context" not in answer


@pytest.mark.parametrize(
    "fields", [{"raw": True}, {"suffix": "x"}, {"template": "{{ .Prompt }}"}, {"context": [1, 2]}], ids=str
)
def test_generate_refuses_by_name_what_belongs_to_prompts(server, fields):
    status, _, text = server.ask("/api/generate", {"model": "hello", "prompt": "hi"} | fields)
    [name] = fields
    assert (status, json.loads(text)) == (501, {"error": f"backend 'openai' does not support {name}"})


def test_tools(server, front):
    body = {"model": "tools", "tools": [TOOL], "stream": False} | HELLO
    calls = server.json("/api/chat", body)["message"]["tool_calls"]
    assert [each["function"]["name"] for each in calls] == ["weather", "time"]
    assert calls[0]["function"]["arguments"] == {"city": "Paris"}
    assert front.bodies[-1]["tools"][0]["function"]["name"] == "weather"


def test_thinking(server):
    assert server.json("/api/chat", {"model": "reasoning", "stream": False} | HELLO)["message"] == {
        "role": "assistant",
        "content": "Yes.",
        "thinking": "Hm.",
    }


def test_openai_clients(server):
    answer = server.json("/v1/chat/completions", {"model": "tools", "tools": [TOOL]} | HELLO)
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] == '{"city":"Paris"}'
    assert answer["usage"]["total_tokens"] == 14
    answer = server.json("/v1/responses", {"model": "hello", "input": "hi"})
    assert answer["output"][-1]["content"][0]["text"] == "Hello"
    answer = server.json("/v1/chat/completions", {"model": "logprobs", "logprobs": True, "top_logprobs": 2} | HELLO)
    *_, last = answer["choices"][0]["logprobs"]["content"]
    assert [each["token"] for each in last["top_logprobs"]] == ["!", "?"]


def test_anthropic_clients(server):
    answer = server.json("/v1/messages", {"model": "hello", "max_tokens": 9} | HELLO)
    assert answer["content"] == [{"type": "text", "text": "Hello"}]


def test_grpc_clients(server):
    with grpc.insecure_channel(server.grpc) as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        request = chat_pb2.ChatRequest(model="hello", messages=[message_pb2.ChatMessage(role="user", content="hi")])
        assert stub.Chat(request).message.content == "Hello"
        texts = [delta.content for answer in stub.StreamChat(request) for delta in answer.deltas]
        assert "".join(texts) == "Hello"
        request.options.CopyFrom(options_pb2.RequestOptions(constraint=options_pb2.OutputConstraint(lark="start: A")))
        with pytest.raises(grpc.RpcError) as caught:
            stub.Chat(request)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "lark" in caught.value.details()
        names = [
            each.name
            for each in models_pb2_grpc.ModelsServiceStub(channel).ListModels(models_pb2.ListModelsRequest()).models
        ]
        assert "openai/front/org/b:7b" in names


@pytest.mark.parametrize(
    ("model", "status", "words"),
    [
        ("fault-429", 503, "upstream 'front' takes no more requests now (status 429)"),
        ("fault-404", 400, "upstream 'front' does not know model 'fault:404' (status 404)"),
        ("fault-401", 500, "upstream 'front' refused the server's key (status 401)"),
        ("fault-cut", 500, "upstream 'front' ended its answer too early"),
        ("stalled", 500, "upstream 'front' sent nothing for 3 seconds in the middle of its answer"),
    ],
)
def test_errors_reach_the_client(server, model, status, words):
    answered, _, text = server.ask("/api/chat", {"model": model, "stream": False} | HELLO)
    assert answered == status
    assert json.loads(text)["error"].startswith(words)


def test_a_client_that_hangs_up_ends_the_work_at_the_upstream(server, front):
    front.hung_up.clear()
    answer = server.open("/api/chat", {"model": "endless"} | HELLO)
    answer.readline()
    answer.close()
    wait_until(front.hung_up.is_set)


def test_models_of_upstreams_are_listed_and_serve(server):
    names = wait_until(
        lambda: [name for each in server.json("/api/tags")["models"] if (name := each["name"]).startswith("openai/")]
    )
    assert names == [
        "openai/front/a:latest",
        "openai/front/org/b:7b",
        "openai/other/llamita-embed:latest",
        "openai/other/llamita:latest",
    ]
    assert "openai/other/llamita:latest" in [each["id"] for each in server.json("/v1/models")["data"]]
    shown = server.json("/api/show", {"model": "openai/other/llamita"})
    assert (shown["backend"], shown["upstream"]) == ("openai", "other/llamita:latest")
    body = {"model": "openai/other/llamita", "stream": False, "options": {"temperature": 0}} | HELLO
    assert "llamita" in server.json("/api/chat", body)["message"]["content"]
    assert "openai/other/llamita:latest" in [each["name"] for each in server.json("/api/ps")["models"]]


def test_all_models_and_the_list_share_one_process(server):
    for name in ("hello", "tools", "openai/front/a"):
        server.json("/api/chat", {"model": name, "stream": False} | HELLO)
    assert len(server.json("/api/ps")["models"]) >= 3
    assert len(server.hosts()) == 1


def test_structured_output_by_another_puna(server):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    body = {"model": "openai/other/llamita", "format": schema, "stream": False} | HELLO
    assert json.loads(server.json("/api/chat", body)["message"]["content"]).keys() == {"a"}


def test_vectors_by_another_puna(server, other):
    texts = {"input": ["a cat", "a dog"]}
    ours = server.json("/api/embed", {"model": "openai/other/llamita-embed"} | texts)
    theirs = other.json("/api/embed", {"model": "llamita-embed"} | texts)
    assert ours["prompt_eval_count"] == theirs["prompt_eval_count"]
    for mine, its in zip(ours["embeddings"], theirs["embeddings"], strict=True):
        assert mine == pytest.approx(its, abs=1e-6)


def test_tokens_are_refused_in_words(server):
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        tokenize_pb2_grpc.TokenizeServiceStub(channel).Tokenize(tokenize_pb2.TokenizeRequest(model="hello", text="x"))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "has no tokenizer" in caught.value.details()


def test_no_answer_and_no_log_line_holds_the_key(server):
    assert KEY not in server.log()
    assert KEY not in json.dumps(server.json("/api/tags")) + json.dumps(server.json("/api/show", {"model": "hello"}))
