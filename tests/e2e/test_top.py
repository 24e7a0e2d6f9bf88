"""The commands that look into a running server."""

import json
import os
import subprocess
import sys

import pytest
from tests.e2e.server import MODELS, serving, wait_until

ENDLESS = {"model": "scripted", "prompt": "b", "raw": True, "options": {"num_predict": 100_000}}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("home") / "models") as running:
        running.upload("scripted", MODELS / "scripted.gguf")
        yield running


def puna(server, *command, status=0):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "puna", *command],
        env=os.environ | {"PUNA_GRPC_HOST": server.grpc, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def test_a_running_request_is_seen_and_can_be_cancelled(server):
    with server.open("/api/generate", ENDLESS) as answer:
        answer.readline()
        text = " ".join(puna(server, "top", "--once", "--interval", "0.2").split())
        assert "1 models, 1 requests run, 0 wait" in text
        assert " scripted StreamGenerate decode - " in text
        (found,) = json.loads(puna(server, "requests", "--json"))
        assert (found["model"], found["phase"]) == ("scripted", "REQUEST_PHASE_DECODE")
        assert found["id"] in puna(server, "requests")
        assert found["id"] not in puna(server, "requests", "other")
        assert puna(server, "requests", "--cancel", found["id"]) == ""
        wait_until(lambda: json.loads(puna(server, "requests", "--json")) == [])


def test_cancelling_an_unknown_request_fails(server):
    assert puna(server, "requests", "--cancel", "r999", status=1) == "Error: no such request: r999\n"


def test_bench_measures_what_a_model_does(server):
    words = ("bench", "scripted", "--streams", "1,3", "--prompt-tokens", "20", "--output-tokens", "4")
    found = json.loads(puna(server, *words, "--json"))
    assert [each["streams"] for each in found] == [1, 3]
    # A model may end an answer by itself.
    assert all(0 < each["output_tokens"] <= 4 * each["streams"] for each in found)
    assert all(each["prefill"] > 0 and each["prompt_tokens"] >= 10 * each["streams"] for each in found)
    assert "DECODE TOKENS/S" in puna(server, *words)
    assert "--streams" in puna(server, "bench", "scripted", "--streams", "none", status=1)
