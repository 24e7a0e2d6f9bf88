"""Hosts that hang: their requests hear of it, the next one loads again, and no other request waits for them."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.e2e.server import MODELS, serving, wait_until
from tests.hostile.bounds import unharmed

CRASHED = "model runner has unexpectedly stopped"
ENDLESS = {"prompt": "b", "raw": True, "options": {"num_predict": 100_000}}


@pytest.fixture(scope="module")
def hanging(tmp_path_factory):
    """A server with little patience."""
    with serving(tmp_path_factory.mktemp("home") / "models", PUNA_MAX_HOST_SILENCE_SECONDS="1.5") as running:
        for name in ("scripted", "embedder"):
            running.upload(name, MODELS / f"{name}.gguf")
        yield running


def host_of(server, model):
    """Load a model and return the process id of its host."""
    before = set(server.hosts())
    path, body = ("/api/embed", {"input": "a"}) if model == "embedder" else ("/api/generate", {})
    server.json(path, {"model": model, "keep_alive": -1} | body)
    return wait_until(lambda: set(server.hosts()) - before).pop()


def unload(server, *models):
    for model in models:
        path, body = ("/api/embed", {"input": []}) if model == "embedder" else ("/api/generate", {})
        server.json(path, {"model": model, "keep_alive": 0} | body)
    wait_until(lambda: not server.hosts())


def short(server, model):
    """A short answer."""
    body = {"model": model, "prompt": "b", "raw": True, "stream": False, "options": {"num_predict": 3}}
    return server.json("/api/generate", body)


def test_a_stopped_host_costs_its_own_requests_alone(hanging):
    with unharmed(hanging):
        pid = host_of(hanging, "scripted")
        with hanging.open("/api/generate", {"model": "scripted"} | ENDLESS) as answer, ThreadPoolExecutor() as threads:
            answer.readline()
            os.kill(pid, signal.SIGSTOP)
            whole = threads.submit(
                hanging.ask,
                "/api/chat",
                {"model": "scripted", "stream": False, "messages": [{"role": "user", "content": "b"}]},
            )
            assert short(hanging, "llamita")["done"]
            last = json.loads(answer.read().splitlines()[-1])
            assert last["error"].startswith(CRASHED)
            assert "has not answered for 1.5 seconds" in last["error"]
            # It had no answer yet, so it begins anew on another host.
            status, _, text = whole.result()
            assert (status, json.loads(text)["done"]) == (200, True)
        assert short(hanging, "scripted")["done"]
        assert pid not in hanging.hosts()
        unload(hanging, "scripted", "llamita")


def test_a_reload_behind_a_stopped_host_blocks_no_other_model(hanging):
    with unharmed(hanging):
        pid = host_of(hanging, "scripted")
        with hanging.open("/api/generate", {"model": "scripted"} | ENDLESS) as answer, ThreadPoolExecutor() as threads:
            answer.readline()
            os.kill(pid, signal.SIGSTOP)
            again = threads.submit(
                hanging.json,
                "/api/generate",
                {
                    "model": "scripted",
                    "prompt": "b",
                    "raw": True,
                    "stream": False,
                    "options": {"num_ctx": 512, "num_predict": 3},
                },
            )
            assert hanging.json("/api/embed", {"model": "embedder", "input": "a"}, timeout=10)["embeddings"]
            assert again.result()["done"]
            assert CRASHED.encode() in answer.read().splitlines()[-1]
        unload(hanging, "scripted", "embedder")


def test_embeddings_of_a_stopped_host_come_from_the_next_one(hanging):
    with unharmed(hanging):
        pid = host_of(hanging, "embedder")
        os.kill(pid, signal.SIGSTOP)
        body = {"model": "embedder", "input": ["a", "b"]}
        assert len(hanging.json("/api/embed", body, timeout=20)["embeddings"]) == 2
        assert pid not in hanging.hosts()
        unload(hanging, "embedder")


def test_a_stopped_host_can_be_unloaded(hanging):
    with unharmed(hanging):
        pid = host_of(hanging, "scripted")
        os.kill(pid, signal.SIGSTOP)
        unload(hanging, "scripted")
