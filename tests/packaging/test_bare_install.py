"""Puna without extras, as `pip install .` leaves it: no backend has its library, and every face says so."""

import json
import os
import subprocess

import grpc
import pytest
from tests.e2e.server import serving
from tests.packaging.conftest import CLEAN

from puna_client.v1 import chat_pb2, chat_pb2_grpc, message_pb2, server_pb2, server_pb2_grpc

LLAMA_CPP = "llama_cpp and llguidance and numpy and PIL are not installed; to install: pip install 'puna[llama-cpp]'"
CTRANSLATE2 = "ctranslate2 and tokenizers and numpy are not installed; to install: pip install 'puna[ctranslate2]'"
OPENAI = "openai and httpx2 are not installed; to install: pip install 'puna[openai]'"
ANSWER = f"no installed backend serves models of format 'gguf'; backend 'llama_cpp' is broken: {LLAMA_CPP}"


@pytest.fixture(scope="module")
def server(bare, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("home") / "models", bare / "puna", **CLEAN) as running:
        yield running


def puna(bare, *arguments, **environment):
    return subprocess.run(
        [bare / "puna", *arguments],
        env=os.environ | CLEAN | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_server_that_can_run_no_model_does_not_say_that_it_is_ready(server):
    assert server.greeting.startswith("Puna runs, but can run no model: REST on http://127.0.0.1:")
    assert f"ERROR puna.cli.serve: backend llama_cpp is not available: {LLAMA_CPP}\n" in server.log()
    assert f"ERROR puna.cli.serve: backend ctranslate2 is not available: {CTRANSLATE2}\n" in server.log()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/generate", {"model": "llamita", "prompt": "Hi"}),
        ("/api/chat", {"model": "llamita", "messages": [{"role": "user", "content": "Hi"}]}),
        ("/api/generate", {"model": "llamita"}),
    ],
)
def test_the_first_request_of_a_model_says_what_is_missing(server, path, body):
    status, _, text = server.ask(path, body)
    assert (status, json.loads(text)) == (500, {"error": ANSWER})


def test_grpc_says_the_same(server):
    message = message_pb2.ChatMessage(role="user", content="Hi")
    with grpc.insecure_channel(server.grpc) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            chat_pb2_grpc.ChatServiceStub(channel).Chat(chat_pb2.ChatRequest(model="llamita", messages=[message]))
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.FAILED_PRECONDITION, ANSWER)
        info = server_pb2_grpc.ServerServiceStub(channel).GetServerInfo(server_pb2.GetServerInfoRequest())
    assert {each.name: each.error for each in info.backends} == {
        "llama_cpp": LLAMA_CPP,
        "ctranslate2": CTRANSLATE2,
        "openai": OPENAI,
    }


def test_what_needs_no_backend_works(server):
    assert "llamita:latest" in [model["name"] for model in server.json("/api/tags")["models"]]


def test_plugins_are_listed_with_the_command_that_installs_what_they_lack(bare):
    listed = puna(bare, "plugins").stdout
    assert LLAMA_CPP in listed
    assert CTRANSLATE2 in listed


def test_doctor_calls_it_a_fault(bare, server):
    for place in ([], ["--offline"]):
        done = puna(bare, "doctor", *place, PUNA_GRPC_HOST=server.grpc, OLLAMA_MODELS=str(server.store))
        assert done.returncode == 1
        assert f"FAULT    broken backend: llama_cpp: {LLAMA_CPP}\n" in done.stdout
    done = puna(bare, "doctor", "--json", PUNA_GRPC_HOST=server.grpc)
    first = json.loads(done.stdout.splitlines()[0])
    assert first["backend"]["name"] == "ctranslate2"
    assert first["backend"]["error"] == CTRANSLATE2
