"""What a newcomer does in the first minutes, and what may go wrong then."""

import json
import os
import signal
import subprocess

import pytest
from tests.e2e.server import PUNA, parents, serving, wait_until


def test_the_readme_s_first_command(server):
    body = {"model": "llamita", "prompt": "Why is the sky blue?"}
    with server.open("/api/generate", body) as answer:
        assert answer.headers["Content-Type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in answer]
    text = "".join(line["response"] for line in lines)
    assert "blue" in text
    assert "light" in text
    assert len(lines) > 10
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1]["done_reason"] == "stop"
    assert lines[-1]["eval_count"] > 10


def test_a_new_store_has_the_demo_model_as_an_ordinary_one(server):
    (model,) = [each for each in server.json("/api/tags")["models"] if each["name"] == "llamita:latest"]
    assert model["details"]["family"] == "llama"
    shown = server.json("/api/show", {"model": "llamita"})
    assert {"completion", "tools", "thinking"} <= set(shown["capabilities"])
    assert server.ask("/api/copy", {"source": "llamita", "destination": "copied"})[0] == 200
    assert server.ask("/api/delete", {"model": "copied"}, method="DELETE")[0] == 200


def test_a_new_store_has_a_model_for_embeddings(server):
    texts = ["Why is the sky blue?", "What makes the sky look so blue?", "The capital of France is Paris."]
    answer = server.json("/api/embed", {"model": "llamita-embed", "input": texts})
    asked, alike, other = answer["embeddings"]
    assert all(abs(sum(x * x for x in vector) - 1) < 1e-4 for vector in answer["embeddings"])
    assert sum(a * b for a, b in zip(asked, alike, strict=True)) > 0.7
    assert sum(a * b for a, b in zip(asked, other, strict=True)) < 0.4
    assert server.json("/api/show", {"model": "llamita-embed"})["capabilities"] == ["embedding"]


def test_a_store_that_exists_is_left_alone_until_asked(tmp_path):
    store = tmp_path / "models"
    store.mkdir()
    with serving(store) as server:
        assert server.json("/api/tags") == {"models": []}
        done = subprocess.run(
            [PUNA, "demo"], env=os.environ | {"OLLAMA_MODELS": str(store)}, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == "llamita and llamita-embed are in the store\n"
        assert [each["name"] for each in server.json("/api/tags")["models"]] == [
            "llamita:latest",
            "llamita-embed:latest",
        ]


def test_a_second_server_says_that_the_port_is_taken(server, tmp_path):
    address = server.url.removeprefix("http://")
    done = subprocess.run(
        [PUNA, "serve"],
        env=os.environ | {"OLLAMA_HOST": address, "PUNA_GRPC_HOST": server.grpc, "OLLAMA_MODELS": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert address in done.stderr
    assert "already in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_grpc_port_is_named_too(server, tmp_path):
    done = subprocess.run(
        [PUNA, "serve"],
        env=os.environ | {"OLLAMA_HOST": "127.0.0.1:0", "PUNA_GRPC_HOST": server.grpc, "OLLAMA_MODELS": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert server.grpc in done.stderr
    assert "already in use" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_in_mid_stream_leaves_no_process_behind(fresh, number):
    with fresh.open("/api/generate", {"model": "scripted", "prompt": "l", "raw": True}) as answer:
        answer.readline()
        hosts = fresh.hosts()
        assert hosts
        fresh.process.send_signal(number)
        assert fresh.process.wait(20) in (0, -number)
    wait_until(lambda: not set(hosts) & set(parents()))


def test_a_killed_host_costs_its_requests_and_the_next_one_loads_again(fresh):
    with fresh.open("/api/generate", {"model": "scripted", "prompt": "b", "raw": True}) as answer:
        answer.readline()
        (host,) = fresh.hosts()
        os.kill(host, signal.SIGKILL)
        last = json.loads(answer.read().splitlines()[-1])
    assert last["error"].startswith("model runner has unexpectedly stopped")
    assert "SIGKILL" in last["error"]
    answer = fresh.json("/api/generate", {"model": "scripted", "prompt": "a", "raw": True, "stream": False})
    assert answer["response"] == "Hello, world!"


def test_killing_the_server_takes_its_hosts_along(tmp_path):
    with serving(tmp_path / "models") as server:
        server.json("/api/generate", {"model": "llamita", "prompt": "Hello", "stream": False})
        hosts = server.hosts()
        server.process.kill()
        server.process.wait(20)
        wait_until(lambda: not set(hosts) & set(parents()))


def test_nothing_listens_beyond_loopback(server):
    assert server.url.startswith("http://127.0.0.1:")
    assert server.grpc.startswith("127.0.0.1:")
