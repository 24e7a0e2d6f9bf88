"""SIGHUP has a server read its configuration again."""

import os
import signal
import subprocess

import pytest
from tests.e2e.server import PUNA, serving, wait_until


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
    wait_until(lambda: text in server.log(), 10)


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


def test_a_bad_file_ends_a_start(config, tmp_path):
    config.write_text("max_queue = 'many'\n")
    own = {"OLLAMA_HOST": "127.0.0.1:0", "PUNA_GRPC_HOST": "127.0.0.1:0", "OLLAMA_MODELS": str(tmp_path / "models")}
    done = subprocess.run([PUNA, "serve"], env=os.environ | own, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "config.toml:1: max_queue: it must be a whole number" in done.stderr
