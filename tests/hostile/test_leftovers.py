"""A server that dies leaves nothing that lasts, and one whose files are cleaned away makes them anew."""

import contextlib
import http.client
import os
import shutil
import signal
import tempfile
import threading
from pathlib import Path

import pytest
from tests.e2e.server import MODELS, command, parents, serving, wait_until

QUANTIZED = {"model": "q", "from": "scripted", "quantize": "q8_0"}
ASKED = {"model": "scripted", "prompt": "a", "raw": True, "stream": False}


@pytest.fixture
def temporary():
    """Where servers put temporary files; its path must be short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
def start(temporary, tmp_path):
    """Starts servers over one store, that put their temporary files into the folder."""

    def start():
        return serving(tmp_path / "models", TMPDIR=str(temporary), XDG_RUNTIME_DIR=str(temporary))

    return start


def children(server, word):
    """Process ids of the server's children whose command line has a word."""
    family = [pid for pid, parent in parents().items() if parent == server.process.pid]
    return [pid for pid in family if word.encode() in command(pid)]


def kill(server):
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()


def test_sockets_that_a_cleaner_removes_are_made_anew(start, temporary):
    with start() as server:
        server.upload("scripted", MODELS / "scripted.gguf")
        for _ in range(2):
            assert server.json("/api/generate", ASKED)["done"]
            for path in temporary.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            assert server.json("/api/generate", ASKED)["done"]  # by the loaded model
            server.json("/api/generate", {"model": "scripted", "keep_alive": 0})
            wait_until(lambda: not server.hosts())
        assert server.json("/api/generate", ASKED)["done"]
    assert list(temporary.iterdir()) == []


def test_a_killed_server_takes_its_programs_and_its_folders_go_at_the_next_start(start, temporary):
    with start() as server:
        server.upload("scripted", MODELS / "scripted.gguf")
        assert server.json("/api/generate", ASKED)["done"]

        def create():
            with contextlib.suppress(OSError, http.client.HTTPException):
                server.ask("/api/create", QUANTIZED)

        asking = threading.Thread(target=create)
        asking.start()
        (quantizer,) = wait_until(lambda: children(server, "puna_llama_cpp.quantize"))
        os.kill(quantizer, signal.SIGSTOP)  # it would be done too soon otherwise
        (host,) = children(server, "puna.host")
        kill(server)
        asking.join(20)
        wait_until(lambda: not {quantizer, host} & parents().keys(), 10)
    left = [path.name for path in temporary.iterdir()]
    assert len(left) == 3  # those of the hosts and of the quantizer, and the core's socket
    with start() as server:
        assert not {path.name for path in temporary.iterdir()} & set(left)
        assert server.json("/api/generate", ASKED)["done"]
    assert list(temporary.iterdir()) == []


def test_a_signal_ends_a_quantizer_that_is_silent(temporary, tmp_path):
    short = {"TMPDIR": str(temporary), "XDG_RUNTIME_DIR": str(temporary), "PUNA_MAX_DRAIN_SECONDS": "0.3"}
    with serving(tmp_path / "models", **short) as server:
        server.upload("scripted", MODELS / "scripted.gguf")
        answers = []
        asking = threading.Thread(target=lambda: answers.append(server.ask("/api/create", QUANTIZED)))
        asking.start()
        (quantizer,) = wait_until(lambda: children(server, "puna_llama_cpp.quantize"))
        os.kill(quantizer, signal.SIGSTOP)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0
        asking.join(10)
        ((status, _, text),) = answers
        assert (status, text) == (503, b'{"error":"the server is shutting down"}')
        assert quantizer not in parents()
    assert list(temporary.iterdir()) == []
    assert not list((tmp_path / "models" / "blobs").glob("[!s]*"))


def test_what_a_first_start_left_is_removed_by_the_next(start, tmp_path):
    left = tmp_path / ".models-12345678"
    left.mkdir()
    (left / ".puna-scratch").touch()
    (tmp_path / ".models-of-mine").mkdir()
    with start() as server:
        assert {each["name"] for each in server.json("/api/tags")["models"]} == {
            "llamita:latest",
            "llamita-embed:latest",
        }
    assert sorted(path.name for path in tmp_path.iterdir()) == [".models-of-mine", "models"]
