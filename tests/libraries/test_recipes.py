"""The recipes of guides and course notes, as curl would send them."""

import contextlib
import json
import math
import os
import socket
import subprocess
from datetime import datetime, timedelta

import pytest
from tests.e2e.server import PUNA, serving, wait_until

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}


@pytest.fixture
def free_port():
    """A port that is free together with the one after it."""
    for _ in range(100):
        with socket.create_server(("127.0.0.1", 0)) as first:
            port = first.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError), socket.create_server(("127.0.0.1", port + 1)):
                return port
    return pytest.fail("no two ports in a row are free")


def generated(server, prompt, options=None, **more):
    """The whole answer to a prompt."""
    asked = {"model": "scripted", "prompt": prompt, "stream": False, "options": options or {}}
    return server.json("/api/generate", asked | more)


def loaded(server):
    return {model["name"]: model for model in server.json("/api/ps")["models"]}


def test_generate_without_a_stream(server):
    answer = server.json(
        "/api/generate",
        {"model": "llamita", "prompt": "Why is the sky blue?", "stream": False, "options": {"temperature": 0}},
    )
    assert "blue" in answer["response"]
    assert answer["done"] is True
    speed = answer["eval_count"] / answer["eval_duration"] * 1e9
    assert 1 < speed < math.inf
    assert answer["total_duration"] >= answer["eval_duration"]


def test_generate_with_a_stream_is_the_default(server):
    with server.open("/api/generate", {"model": "scripted", "prompt": "a"}) as answer:
        lines = [json.loads(line) for line in answer.read().decode().split("\n")[:-1]]
    assert [line["response"] for line in lines] == ["Hello", ",", " world", "!", ""]
    assert lines[-1]["done"] is True


@pytest.mark.parametrize("route", ["generate", "chat"])
@pytest.mark.parametrize("stream", [False, True])
def test_json_by_a_schema(server, route, stream):
    text = "Anna is 31 years old. Write JSON with name and age."
    asked = {"model": "llamita", "format": PERSON, "stream": stream, "think": False, "options": {"temperature": 0}}
    asked |= {"prompt": text} if route == "generate" else {"messages": [{"role": "user", "content": text}]}
    with server.open(f"/api/{route}", asked) as answer:
        lines = [json.loads(line) for line in answer]
    written = "".join(line["response"] if route == "generate" else line["message"]["content"] for line in lines)
    assert json.loads(written) == {"name": "Anna", "age": 31}
    assert (len(lines) > 1) == stream


def test_chat_with_history(server):
    messages = [
        {"role": "user", "content": "Hi! My name is Clara."},
        {"role": "assistant", "content": "Nice to meet you, Clara!"},
        {"role": "user", "content": "What is my name?"},
    ]
    asked = {"model": "llamita", "messages": messages, "stream": False, "options": {"temperature": 0}}
    assert "Clara" in server.json("/api/chat", asked)["message"]["content"]


def test_legacy_embeddings(server):
    old = server.json("/api/embeddings", {"model": "embedder", "prompt": "one"})["embedding"]
    (new,) = server.json("/api/embed", {"model": "embedder", "input": "one"})["embeddings"]
    assert math.sqrt(sum(x * x for x in old)) == pytest.approx(1, abs=1e-4)
    assert old == pytest.approx(new, abs=1e-6)


def test_num_predict(server):
    answer = generated(server, "b", {"num_predict": 3})
    assert (answer["response"], answer["done_reason"], answer["eval_count"]) == (" w0 w1 w2", "length", 3)


def test_stop(server):
    assert generated(server, "b", {"stop": ["w2", "w7"]})["response"] == " w0 w1 "


def test_seed_repeats_what_a_temperature_makes_vary(server):
    def tell(seed):
        options = {"seed": seed, "temperature": 5, "num_predict": 20, "top_k": 0, "top_p": 1}
        return generated(server, "Tell me a story.", options, model="llamita", think=False)["response"]

    # The first request computes the whole prompt, later ones the rest of a cached one. The last bits of their
    # logits differ, and at this temperature a token in some hundreds shows it.
    tell(0)
    told = [tell(seed) for seed in range(4)]
    assert told == [tell(seed) for seed in range(4)]
    assert len(set(told)) > 1


@pytest.mark.parametrize("tamed", [{"top_k": 1}, {"top_p": 0}, {"temperature": 0}, {"min_p": 1}])
def test_samplers_tame_a_high_temperature(server, tamed):
    options = {"seed": 3, "temperature": 5, "num_predict": 40} | tamed
    answer = generated(server, "What is the capital of France?", options, model="llamita", think=False)
    assert answer["response"] == "The capital of France is Paris."


def test_repeat_penalty(server):
    options = {"temperature": 0, "num_predict": 8, "repeat_last_n": 64}
    assert generated(server, "l", options)["response"] == " spam" * 8
    assert generated(server, "l", options | {"repeat_penalty": 1000.0})["response"] != " spam" * 8


def test_num_ctx(server):
    generated(server, "a", {"num_ctx": 512})
    assert loaded(server)["scripted:latest"]["context_length"] == 512


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [("5m", timedelta(minutes=4), timedelta(minutes=6)), ("-1", timedelta(days=365), None)],
)
def test_keep_alive_as_text(server, text, least, most):
    generated(server, "a", keep_alive=text)
    until = datetime.fromisoformat(loaded(server)["scripted:latest"]["expires_at"])
    left = until - datetime.now(until.tzinfo)
    assert left > least
    assert most is None or left < most


@pytest.mark.parametrize("nothing", ["0", 0])
def test_keep_alive_of_nothing_unloads(server, nothing):
    generated(server, "a")
    assert "scripted:latest" in loaded(server)
    assert generated(server, "", keep_alive=nothing)["done_reason"] == "unload"
    wait_until(lambda: "scripted:latest" not in loaded(server))


def test_several_servers_by_ollama_host(server, tmp_path, free_port):
    """The variable alone tells them apart, for the server and for the command line."""
    address = f"127.0.0.1:{free_port}"
    with serving(tmp_path / "models", OLLAMA_HOST=address, PUNA_GRPC_HOST="", OMP_WAIT_POLICY="passive") as other:
        assert other.url == f"http://{address}"
        demo = {"llamita:latest", "llamita-embed:latest"}
        assert {model["name"] for model in other.json("/api/tags")["models"]} == demo
        assert {model["name"] for model in server.json("/api/tags")["models"]} > demo
        listed = subprocess.run(
            [PUNA, "list"],
            env=os.environ | {"OLLAMA_HOST": address, "PUNA_GRPC_HOST": ""},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        assert len(listed.splitlines()) == 1 + len(demo)
