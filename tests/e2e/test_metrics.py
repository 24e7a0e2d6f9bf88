"""Metrics of a running server, on an address of their own and on the REST face."""

import os
import re
import signal
import urllib.request

import pytest
from tests.e2e.server import MODELS, serving, wait_until

ADDRESS = re.compile(r"metrics on (\S+)")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    environment = {"PUNA_METRICS_HOST": "127.0.0.1:0", "PUNA_REST_METRICS": "1"}
    with serving(tmp_path_factory.mktemp("home") / "models", **environment) as running:
        running.upload("scripted", MODELS / "scripted.gguf")
        running.upload("embedder", MODELS / "embedder.gguf")
        yield running


def metrics(server):
    """Return the series of the address of its own, by name with labels as they are written."""
    with urllib.request.urlopen(ADDRESS.search(server.greeting)[1], timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def test_answers_embeddings_and_failures_are_counted(server):
    ask = {"model": "scripted", "prompt": "b", "raw": True, "stream": False, "options": {"num_predict": 5}}
    told = [server.json("/api/generate", ask) for _ in range(2)]
    server.json("/api/embed", {"model": "embedder", "input": ["a", "b"]})
    assert server.ask("/api/generate", {"model": "nosuch", "prompt": "b"})[0] == 404
    found = metrics(server)
    assert found['puna:prompt_tokens_total{model_name="scripted"}'] == sum(each["prompt_eval_count"] for each in told)
    assert found['puna:generation_tokens_total{model_name="scripted"}'] == sum(each["eval_count"] for each in told)
    assert found['puna:request_success_total{finished_reason="length",model_name="scripted"}'] == 2
    assert found['puna:embeddings_total{model_name="embedder"}'] == 2
    assert found['puna:request_failure_total{model_name="",reason="MODEL_NOT_FOUND"}'] == 1
    assert found['puna:model_load_seconds_count{model_name="scripted"}'] == 1
    first = found['puna:time_to_first_token_seconds_sum{model_name="scripted"}']
    assert 0 < first <= found['puna:e2e_request_latency_seconds_sum{model_name="scripted"}']


def test_a_running_stream_is_seen_and_its_end_too(server):
    running = 'puna:num_requests_running{model_name="scripted"}'
    ask = {"model": "scripted", "prompt": "b", "raw": True, "options": {"num_predict": 100_000}}
    with server.open("/api/generate", ask) as answer:
        answer.readline()
        assert metrics(server)[running] == 1
    wait_until(lambda: metrics(server)[running] == 0)
    assert metrics(server)['puna:requests_cancelled_total{model_name="scripted",phase="decode"}'] == 1


def test_a_host_that_dies_is_counted_by_its_signal(server):
    server.json("/api/generate", {"model": "scripted", "prompt": "b", "stream": False, "options": {"num_predict": 1}})
    for pid in server.hosts():
        os.kill(pid, signal.SIGKILL)
    died = 'puna:host_deaths_total{model_name="scripted",status="SIGKILL"}'
    wait_until(lambda: died in metrics(server))
    assert metrics(server)['puna:models_removed_total{cause="crashed",model_name="scripted"}'] == 1


def test_the_rest_face_serves_the_same(server):
    status, headers, text = server.ask("/metrics")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b"puna:num_requests_waiting{" in text
    assert server.ask("/metrics", {})[0] == 405
