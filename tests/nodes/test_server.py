"""A server whose models run on nodes, while nodes and servers are killed."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.e2e.server import MODELS, PUNA, parents, serving, wait_until
from tests.nodes.running import Stream

SCRIPTED = Path(__file__).parents[1] / "plugins" / "scripted"
CLEAR_SECONDS = 3.0
"""How long the error of a node that is gone may take."""


@pytest.fixture
def environment():
    return {"PYTHONPATH": os.pathsep.join([str(SCRIPTED), os.environ.get("PYTHONPATH", "")])}


@pytest.fixture
def start_server(tmp_path, cluster, environment):
    def start(*nodes, store="models", **more):
        settings = {
            "PUNA_LAUNCHER": "static",
            "PUNA_HOSTS": ",".join(each.address for each in nodes),
            "PUNA_CLUSTER_TLS": str(cluster / "core"),
        }
        return serving(tmp_path / store, **(settings | environment | more))

    return start


def prepare(server):
    server.upload("scripted", MODELS / "scripted.gguf", backend="scripted")


def answer(server):
    body = {"model": "scripted", "prompt": "a b", "raw": True, "stream": False}
    return server.json("/api/generate", body)["response"]


def test_nodes_serve_and_one_that_is_killed_is_a_clear_error(start_node, start_server, environment):
    with start_node(**environment) as one, start_node(**environment) as two, start_server(one, two) as server:
        prepare(server)
        options = {"num_predict": 4}
        server.json("/api/generate", {"model": "llamita", "prompt": "Hi", "stream": False, "options": options})
        assert answer(server) == "ab"
        assert server.hosts() == []
        assert (len(one.hosts()), len(two.hosts())) == (1, 1)
        stream = Stream(server, "a @wait 600")
        stream.begun()
        first, second = (one, two) if "for scripted:latest" in one.log() else (two, one)
        hosts = first.hosts()
        killed_at = time.monotonic()
        first.end(signal.SIGKILL)
        assert first.address in stream.end()["error"]
        assert stream.ended_at - killed_at < CLEAR_SECONDS
        wait_until(lambda: not set(hosts) & parents().keys(), failure="hosts outlive their node")
        assert answer(server) == "ab"
        assert len(second.hosts()) == 2
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(30)
        # The lease is given back: the hosts end at once, and another core is welcome.
        wait_until(lambda: not second.hosts())
        assert "gives the lease back" in second.log()


def test_a_stopped_node_and_a_second_server_are_clear_errors(start_node, start_server, environment):
    """SIGSTOP stops a node as a cut cable does: connections stay open, and nothing answers."""
    with start_node(**environment) as node, start_server(node) as server:
        prepare(server)
        stream = Stream(server, "a @wait 600")
        stream.begun()
        os.kill(node.process.pid, signal.SIGSTOP)
        stopped_at = time.monotonic()
        assert "has not answered for 2 s" in stream.end()["error"]
        assert stream.ended_at - stopped_at < CLEAR_SECONDS + 1.0  # one second for a busy machine
        began = time.monotonic()
        status, _, text = server.ask("/api/generate", {"model": "scripted", "prompt": "a", "raw": True})
        assert (status, time.monotonic() - began < CLEAR_SECONDS + 1.0) == (503, True)
        assert b"does not answer within 2 s" in text
        os.kill(node.process.pid, signal.SIGCONT)
        assert answer(server) == "ab"
        wait_until(lambda: len(node.hosts()) == 1, failure="the host that was given up still runs")
        with start_server(node, store="second") as other:
            prepare(other)
            status, _, text = other.ask("/api/generate", {"model": "scripted", "prompt": "a", "raw": True})
            assert status == 503
            assert f"serves another core, {os.uname().nodename} (process {server.process.pid})".encode() in text
        assert answer(server) == "ab"


def test_nodes_end_the_hosts_of_a_killed_core(start_node, start_server, environment):
    with (
        start_node("--lease", "2", **environment) as stays,
        start_node("--lease", "2", "--exit-with-core", **environment) as leaves,
    ):
        with start_server(stays, leaves) as server:
            prepare(server)
            Stream(server, "a @wait 600").begun()
            hosts = stays.hosts() + leaves.hosts()
            assert len(hosts) == 1
            wait_until(lambda: "takes the lease" in stays.log() and "takes the lease" in leaves.log())
            server.process.kill()
            wait_until(lambda: not set(hosts) & parents().keys(), failure="hosts outlive their core")
        assert leaves.process.wait(30) == 0
        wait_until(lambda: "is gone: it has not renewed its lease for 2 s" in stays.log())
        with start_server(stays, store="second") as server:
            prepare(server)
            assert answer(server) == "ab"


def test_a_server_without_nodes_imports_nothing_of_them():
    code = (
        "import sys, puna.cli.serve, puna.runtime.pool;"
        "print([name for name in ('puna.runtime.static_launcher', 'puna.runtime.ray_launcher', 'puna.runtime.node',"
        " 'puna.node', 'ray') if name in sys.modules])"
    )
    done = subprocess.run(
        [PUNA.with_name("python"), "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_an_option_without_its_certificate_ends_the_start(tmp_path):
    variables = {"OLLAMA_MODELS": str(tmp_path / "m"), "PUNA_BATCHES": str(tmp_path / "b")}
    done = subprocess.run(
        [PUNA, "serve", "--launcher", "static", "--hosts", "gpu1:7"],
        env=os.environ | variables | {"OLLAMA_HOST": "127.0.0.1:0", "PUNA_CLUSTER_TLS": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "ca.crt: No such file or directory" in done.stderr
    assert "Traceback" not in done.stderr
