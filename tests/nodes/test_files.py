"""Nodes that do not see the models of their server, and get them over the network."""

import hashlib
import os
import signal
import socket
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import pytest
from tests.e2e.server import MODELS, serving, wait_until

from puna_client.v1 import generate_pb2, generate_pb2_grpc

SCRIPTED = Path(__file__).parents[1] / "plugins" / "scripted"
ELSEWHERE = "/proc/self/cwd"
"""A path below it exists for a process in that folder alone, as on machines that share no disk."""
SIZE = 20_000_000
"""Bytes of a file that does not fit into the buffers of connections."""
PASSED = 8_000_000
"""Bytes that a connection passes on before it stands still."""
CLEAR_SECONDS = 4.0
"""How long the error of a node that is gone may take. One second more is for a busy machine."""


@pytest.fixture
def environment():
    return {"PYTHONPATH": os.pathsep.join([str(SCRIPTED), os.environ.get("PYTHONPATH", "")])}


@pytest.fixture
def start_server(tmp_path, cluster, environment):
    def start(address, **more):
        settings = {
            "PUNA_LAUNCHER": "static",
            "PUNA_HOSTS": address,
            "PUNA_CLUSTER_TLS": str(cluster / "core"),
            "PUNA_BATCHES": str(tmp_path / "batches"),
        }
        return serving(f"{ELSEWHERE}/models", cwd=tmp_path, **(settings | environment | more))

    return start


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


class Proxy:
    """Stands between a server and a node, and counts the bytes to the node."""

    def __init__(self):
        self.node = ""
        self.passed = 0
        self.open = threading.Event()
        """Not set: each connection passes on so many bytes and no more."""
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self):
        self.open.set()
        self._server.shutdown(socket.SHUT_RDWR)
        for each in self._threads:
            each.join(30)
        self._server.close()

    def _accept(self):
        with suppress(OSError):
            while True:
                outer, _ = self._server.accept()
                self._threads.append(threading.Thread(target=self._connect, args=(outer,)))
                self._threads[-1].start()

    def _connect(self, outer):
        host, _, port = self.node.rpartition(":")
        with outer, suppress(OSError), socket.create_connection((host, int(port))) as inner:
            back = threading.Thread(target=self._copy, args=(inner, outer))
            back.start()
            self._copy(outer, inner)
            back.join()

    def _copy(self, source, target):
        passed, counted = 0, target.getpeername()[1] == int(self.node.rpartition(":")[2])
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
                passed += len(data)
                self.passed += len(data) * counted
                if passed > PASSED:
                    self.open.wait()
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy():
    made = Proxy()
    yield made
    made.close()


def partial(cache):
    """How much has arrived of the file that is not complete."""
    folder = cache / "partial"
    return sum(each.stat().st_size for each in folder.iterdir()) if folder.exists() else 0


def complete(cache):
    """The names of the files that a node keeps. Each is the digest of its file."""
    files = list((cache / "files").iterdir())
    assert [each.name for each in files] == [
        f"sha256-{hashlib.sha256(each.read_bytes()).hexdigest()}" for each in files
    ]
    return {each.name for each in files}


def ask(server, model="large"):
    return server.ask("/api/generate", {"model": model, "prompt": "a b", "raw": True, "stream": False})


def until_transferred(channel):
    """Ask for an answer, and wait until it is told that a part of the files has arrived; return the call."""
    stub = generate_pb2_grpc.GenerateServiceStub(channel)
    call = stub.StreamGenerate(generate_pb2.GenerateRequest(model="large", text="a"), timeout=60)
    loading = (each.progress.loading for each in call if each.progress.WhichOneof("phase") == "loading")
    found = next(each for each in loading if each.done_bytes > PASSED // 2)
    assert (found.fraction, found.total_bytes) == (0.0, SIZE + 2)
    assert found.done_bytes < SIZE
    return call


@contextmanager
def asking(server):
    """Have a thread ask for an answer; yield the list that gets the answer and its time."""
    answers = []

    def run():
        with suppress(OSError):  # the server is killed
            answers.append((*ask(server), time.monotonic()))

    thread = threading.Thread(target=run)
    thread.start()
    yield answers
    thread.join(60)


def make_large(server, model="large"):
    """Make a model of two files."""
    files = {"weights.bin": server.blob(os.urandom(SIZE)), "config.json": server.blob(b"{}")}
    body = {"model": model, "backend": "scripted", "format": "scripted", "files": files, "stream": False}
    server.json("/api/create", body)
    return {each.replace(":", "-") for each in files.values()}


def test_a_node_without_the_models_serves_them(start_node, start_server, cache):
    with start_node(PUNA_NODE_CACHE=str(cache)) as node, start_server(node.address) as server:
        server.upload("llamita", MODELS / "chatter.gguf")
        body = {"model": "llamita", "prompt": "Hi", "stream": False, "options": {"num_predict": 4}}
        assert server.json("/api/generate", body)["done"]
        assert len(node.hosts()) == 1
    assert len(complete(cache)) == 1


def test_a_node_without_room_for_a_model_is_passed_over(start_node, start_server, environment, tmp_path):
    small, roomy = (environment | {"PUNA_NODE_CACHE": str(tmp_path / each)} for each in ("small", "roomy"))
    with start_node("--cache-bytes", "1000", **small) as full:
        with start_server(full.address) as server:
            make_large(server)
            status, _, text = ask(server)
            assert (status, b"there is no room for a file" in text) == (503, True)
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(60)
        with start_node(**roomy) as other, start_server(f"{full.address},{other.address}") as server:
            make_large(server, "second")
            # The node with the fewest hosts is asked first, so one of two models meets the full one.
            assert [ask(server, model)[0] for model in ("large", "second")] == [200, 200]
            assert (len(full.hosts()), len(other.hosts())) == (0, 2)


def test_a_transfer_goes_on_after_the_node_is_killed(start_node, start_server, environment, cache, proxy):
    environment = environment | {"PUNA_NODE_CACHE": str(cache)}
    proxy.node = "127.0.0.1:1"
    with start_server(proxy.address) as server:
        with start_node(**environment) as node:
            proxy.node = node.address
            files = make_large(server)
            with asking(server) as answers:
                wait_until(lambda: partial(cache) > PASSED // 2, failure="too little has arrived")
                killed_at = time.monotonic()
                node.end(signal.SIGKILL)
            status, _, text, ended_at = answers[0]
            assert (status, ended_at - killed_at < CLEAR_SECONDS) == (503, True)
            assert proxy.address.encode() in text
        proxy.open.set()
        proxy.passed = 0
        with start_node(**environment) as node:
            proxy.node = node.address
            # The server may take some seconds to see that the old node is gone.
            wait_until(lambda: ask(server)[0] == 200, failure="the node that was started anew is not used")
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(60)
    assert complete(cache) == files
    assert proxy.passed < SIZE - PASSED // 4


def test_a_transfer_goes_on_after_the_server_is_killed(start_node, start_server, environment, cache, proxy):
    environment = environment | {"PUNA_NODE_CACHE": str(cache)}
    with start_node("--lease", "2", **environment) as node:
        proxy.node = node.address
        with start_server(proxy.address) as server:
            files = make_large(server)
            with grpc.insecure_channel(server.grpc) as channel:
                call = until_transferred(channel)
                server.process.kill()
                call.cancel()
        proxy.open.set()
        wait_until(lambda: not node.hosts())
        proxy.passed = 0
        with start_server(proxy.address) as server:
            status, _, text = ask(server)
            assert status == 200, text
    assert complete(cache) == files
    assert proxy.passed < SIZE - PASSED // 4
