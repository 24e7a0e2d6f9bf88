"""SIGHUP has a server read its configuration again."""

import json
import os
import signal
import subprocess

import grpc
import pytest
from tests.e2e.server import PUNA, serving, wait_until
from tests.e2e.test_keys import reason

from puna_client.v1 import (
    chat_pb2,
    chat_pb2_grpc,
    message_pb2,
    models_pb2,
    models_pb2_grpc,
    server_pb2,
    server_pb2_grpc,
)


@pytest.fixture
def config(tmp_path, monkeypatch):
    """The configuration file of the servers of a test, where they look for it by themselves."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    path = tmp_path / "config" / "puna" / "config.toml"
    path.parent.mkdir(parents=True)
    path.touch()
    return path


def again(server, text):
    """Send SIGHUP and wait for this text in the log."""
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: text in server.log(), 60)


def reload_by_command(server, tmp_path):
    """Run `puna config reload`. It has a file of its own, so that it reads no mistake of the server's."""
    own = {"PUNA_GRPC_HOST": server.grpc, "XDG_CONFIG_HOME": str(tmp_path / "none")}
    return subprocess.run([PUNA, "config", "reload"], env=os.environ | own, capture_output=True, text=True, timeout=60)


def test_what_a_running_server_may_change_holds_from_the_next_request_on(config, tmp_path):
    with serving(tmp_path / "models") as server:
        assert server.ask("/api/tags")[0] == 200
        config.write_text('expose = ["chat"]\ncontext_length = 64\nmodels = "/elsewhere"\n')
        again(server, "changed context_length, expose")
        assert "these settings change with the next start: models" not in server.log()  # OLLAMA_MODELS wins
        assert server.ask("/api/tags")[0] == 403
        config.write_text("context_length = 64\ngrpc_host = '127.0.0.1:1'\ndrain_delay = '1s'\n")
        again(server, "changed expose")
        assert "these settings change with the next start: drain_delay" in server.log()
        server.json(
            "/api/generate", {"model": "llamita", "prompt": "a", "stream": False, "options": {"num_predict": 1}}
        )
        assert server.json("/api/ps")["models"][0]["context_length"] == 64


def test_a_bad_file_changes_nothing_and_names_the_line(config, tmp_path):
    config.write_text('expose = ["chat", "models"]\n')
    with serving(tmp_path / "models") as server:
        config.write_text('expose = ["embed"]\nexposee = []\n')
        again(server, "config.toml:2: exposee: there is no such setting; perhaps expose")
        assert server.ask("/api/tags")[0] == 200
        config.write_text('expose = ["embed"]\n')
        again(server, "changed expose")
        assert server.ask("/api/tags")[0] == 403


def test_settings_of_a_model_hold_on_both_faces_and_from_the_next_request_on(config, tmp_path):
    config.write_text("""
        [model.llamita]
        aliases = ["gpt-4o"]
        keep_alive = -1
        max_output_tokens = 3
        options = { num_ctx = 128, temperature = 0 }
    """)
    with serving(tmp_path / "models") as server:
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Count to ten."}], "stream": False}
        answer = server.json("/api/chat", body)
        assert (answer["model"], answer["eval_count"], answer["done_reason"]) == ("gpt-4o", 3, "length")
        with grpc.insecure_channel(server.grpc) as channel:
            request = chat_pb2.ChatRequest(
                model="gpt-4o:latest", messages=[message_pb2.ChatMessage(role="user", content="Count to ten.")]
            )
            reply = chat_pb2_grpc.ChatServiceStub(channel).Chat(request)
            assert (reply.finish.usage.output_tokens, reply.message.content) == (3, answer["message"]["content"])
            shown = models_pb2_grpc.ModelsServiceStub(channel).GetModel(models_pb2.GetModelRequest(name="gpt-4o"))
            assert shown.model.name == "llamita:latest"
            assert list(shown.settings.aliases) == ["gpt-4o"]
            assert shown.settings.keep_alive.forever
            assert shown.settings.options_json == '{"num_ctx":128,"temperature":0}'
            assert (shown.settings.max_output_tokens, shown.settings.HasField("num_parallel")) == (3, False)
        (loaded,) = server.json("/api/ps")["models"]
        assert (loaded["name"], loaded["context_length"]) == ("llamita:latest", 128)
        assert loaded["expires_at"] > "2200"
        listed = {each["name"] for each in server.json("/api/tags")["models"]}
        assert listed == {"llamita:latest", "llamita-embed:latest"}
        config.write_text("[model.llamita]\naliases = ['gpt-5']\n\nmax_output_tokens = 0\nkeepalive = 0\n")
        done = reload_by_command(server, tmp_path)
        assert done.returncode == 1
        assert f"{config}:4: model.llamita.max_output_tokens: it must be a whole number from 1" in done.stderr
        assert f"{config}:5: model.llamita.keepalive: there is no such setting of a model; perhaps" in done.stderr
        with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as failed:
            server_pb2_grpc.ServerServiceStub(channel).ReloadConfiguration(server_pb2.ReloadConfigurationRequest())
        assert failed.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert reason(failed.value)[0] == "CONFIGURATION_INVALID"
        assert server.json("/api/chat", body)["eval_count"] == 3
        config.write_text("drain_delay = '1s'\n[model.llamita]\naliases = ['gpt-5']\nmax_output_tokens = 2\n")
        done = reload_by_command(server, tmp_path)
        assert done.stdout == "changed: model\nchanges with the next start: drain_delay\n"
        assert server.ask("/api/chat", body)[0] == 404
        assert server.json("/api/chat", body | {"model": "gpt-5"})["eval_count"] == 2


def test_models_are_preloaded_pinned_and_exclude_each_other(config, tmp_path):
    config.write_text("max_loaded_models = 1\n[model.llamita]\npreload = true\npin = true\n")
    body = {"prompt": "a", "stream": False, "options": {"num_predict": 1}, "keep_alive": 0}
    with serving(tmp_path / "models") as server, grpc.insecure_channel(server.grpc) as channel:

        def loaded():
            request = models_pb2.ListLoadedModelsRequest()
            found = models_pb2_grpc.ModelsServiceStub(channel).ListLoadedModels(request).models
            return {each.model.name: each.pinned for each in found}

        wait_until(lambda: loaded() == {"llamita:latest": True}, 60)
        # The request's keep-alive does not end it, and another model finds no room.
        server.json("/api/generate", body | {"model": "llamita"})
        status, _, text = server.ask("/api/embed", {"model": "llamita-embed", "input": "a"})
        assert (status, json.loads(text)["error"]) == (
            500,
            "unable to load model: pinned models take all 1 places; OLLAMA_MAX_LOADED_MODELS sets how many there are",
        )
        with pytest.raises(grpc.RpcError) as failed:
            models_pb2_grpc.ModelsServiceStub(channel).LoadModel(models_pb2.LoadModelRequest(name="llamita-embed"))
        assert failed.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert loaded() == {"llamita:latest": True}
        config.write_text('[model_sets]\nboth = ["llamita", "llamita-embed"]\n[model.llamita-embed]\npreload = true\n')
        again(server, "changed max_loaded_models, model")
        # What is pinned no longer has the keep-alive of its last request.
        wait_until(lambda: loaded() == {"llamita-embed:latest": False}, 60)
        server.json("/api/generate", body | {"model": "llamita", "keep_alive": "1h"})
        assert loaded() == {"llamita:latest": False}


def test_a_bad_file_ends_a_start(config, tmp_path):
    config.write_text("max_queue = 'many'\n")
    own = {"OLLAMA_HOST": "127.0.0.1:0", "PUNA_GRPC_HOST": "127.0.0.1:0", "OLLAMA_MODELS": str(tmp_path / "models")}
    done = subprocess.run([PUNA, "serve"], env=os.environ | own, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "config.toml:1: max_queue: it must be a whole number" in done.stderr
