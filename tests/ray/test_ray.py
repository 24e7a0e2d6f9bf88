"""A server whose models run on a Ray cluster of three nodes, while parts of it are killed."""

import json
import os
import subprocess
import time

import grpc
import pytest
from tests.e2e.server import MODELS, PUNA, command, parents, wait_until
from tests.nodes.running import Stream
from tests.ray.cluster import give_priority, kill, puna_nodes, runs_in

from puna_client.v1 import models_pb2, models_pb2_grpc

CLEAR_SECONDS = 3.0
"""How long the error of what is gone may take."""
ENDLESS = "a @wait 1 " * 400
"""A prompt that is answered for some minutes, a piece each second. It fits into the context."""
DRIVER = b"puna.runtime.ray_driver"


@pytest.fixture(scope="module")
def cluster(make_cluster):
    with make_cluster(1, 2, 2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def server(cluster, start_server):
    """A server that the tests share, since each imports Ray for some seconds."""
    with start_server(cluster) as server:
        prepare(server)
        yield server
    nothing_runs(cluster)


@pytest.fixture(autouse=True)
def nothing_is_loaded(request):
    yield
    if "server" in request.fixturenames:
        running, cluster = request.getfixturevalue("server"), request.getfixturevalue("cluster")
        for each in running.json("/api/ps")["models"]:
            unload(running, each["model"])
        nothing_runs(cluster)


def prepare(server):
    server.upload("scripted", MODELS / "scripted.gguf", backend="scripted")
    # Other files, so that it is another model.
    server.upload("second", MODELS / "chatter.gguf", backend="scripted")
    server.upload("third", MODELS / "jinja.gguf", backend="scripted")


def driver_of(server):
    """Process id of the process by which a server uses Ray."""
    children = [pid for pid, parent in parents().items() if parent == server.process.pid]
    (driver,) = [pid for pid in children if DRIVER in command(pid)]
    return driver


def answer(server, model="scripted"):
    body = {"model": model, "prompt": "a b", "raw": True, "stream": False}
    return server.json("/api/generate", body)["response"]


def unload(server, model="scripted"):
    server.json("/api/generate", {"model": model, "keep_alive": 0})


def nothing_runs(cluster):
    wait_until(lambda: not cluster.puna_nodes(), failure="nodes of Puna are left")
    wait_until(lambda: not cluster.actors(), failure="actors are left")


def goes_on(stream):
    read = len(stream.lines)
    wait_until(lambda: len(stream.lines) > read, failure="the stream stands still")


def end(cluster, stream):
    """End an endless stream, by its host."""
    for each in cluster.hosts():
        kill(each)
    assert stream.end()["error"]


def error_of(server, model="scripted"):
    """Ask for an answer that must fail within CLEAR_SECONDS; return the error."""
    began = time.monotonic()
    status, _, text = server.ask("/api/generate", {"model": model, "prompt": "a", "raw": True, "stream": False})
    assert status >= 500, text
    assert time.monotonic() - began < CLEAR_SECONDS
    return json.loads(text)["error"]


def test_models_are_served_and_unloaded(cluster, server):
    body = {"model": "second", "messages": [{"role": "user", "content": "Hi"}], "stream": False}
    assert server.json("/api/chat", body)["message"]["content"]
    assert answer(server) == "ab"
    assert server.hosts() == []
    assert len(cluster.hosts()) == len(cluster.actors()) == len(cluster.puna_nodes()) == 2
    with server.open("/api/generate", {"model": "scripted", "prompt": ENDLESS, "raw": True}) as given_up:
        given_up.readline()
    assert answer(server) == "ab"
    unload(server)
    wait_until(lambda: len(cluster.hosts()) == len(cluster.actors()) == 1)


def test_a_full_cluster_makes_room_by_evicting(cluster, server):
    """Two nodes have two CPUs each."""
    for name in ("scripted", "second", "third"):
        body = {"model": name, "prompt": "a", "stream": False, "raw": True, "options": {"num_thread": 2}}
        assert server.json("/api/generate", body)["response"] == "a"
    assert len(cluster.hosts()) == 2
    assert "third:latest" in [each["name"] for each in server.json("/api/ps")["models"]]


def test_a_host_and_an_actor_are_killed(cluster, server):
    for kill_part in (cluster.hosts, cluster.actors):
        stream = Stream(server, ENDLESS)
        stream.begun()
        (part,) = kill_part()
        nodes = cluster.puna_nodes()
        kill(part)
        assert stream.end()["error"]
        assert answer(server) == "ab"
        # The actor's node has ended, and another one serves.
        if kill_part == cluster.actors:
            assert not set(nodes) & set(cluster.puna_nodes())


def test_a_core_is_killed_beside_another(cluster, server, start_server):
    assert answer(server) == "ab"
    (kept,) = cluster.hosts()
    with start_server(cluster, store="second") as other:
        prepare(other)
        Stream(other, ENDLESS).begun()
        assert len(cluster.hosts()) == 2
        other.process.kill()
        wait_until(lambda: cluster.hosts() == [kept], 60)
        wait_until(lambda: len(cluster.actors()) == 1, 60)
    assert answer(server) == "ab"


def test_the_process_that_uses_ray_is_killed(cluster, server):
    stream = Stream(server, ENDLESS)
    stream.begun()
    driver = driver_of(server)
    kill(driver)
    wait_until(lambda: driver not in parents())
    assert answer(server, "second") == "ab"
    goes_on(stream)
    assert len(cluster.actors()) == 2
    end(cluster, stream)


def test_a_raylet_is_killed(cluster, server):
    stream = Stream(server, ENDLESS)
    stream.begun()
    (node,) = [each for each in cluster.nodes if each.actors()]
    kill(node.raylet)
    wait_until(lambda: not node.actors())
    # The host goes on without its actor, and other models go elsewhere.
    assert answer(server, "second") == "ab"
    goes_on(stream)
    end(cluster, stream)


def test_the_head_is_killed(cluster, server):
    """Ray's own processes end some seconds after the head. Hosts go on; only loads fail. No test can follow."""
    stream = Stream(server, ENDLESS)
    stream.begun()
    kill(cluster.head)
    assert "Ray's head" in error_of(server, "second")
    wait_until(lambda: not {each.raylet for each in cluster.nodes} & parents().keys(), 60)
    wait_until(lambda: not cluster.actors())
    goes_on(stream)
    assert answer(server) == "ab"
    text = error_of(server, "second")
    assert "Ray" in text
    assert cluster.address in text
    goes_on(stream)
    end(cluster, stream)


def test_a_cluster_is_started_for_a_server(start_server, tmp_path_factory):
    body = {"model": "scripted", "prompt": "a b", "raw": True, "stream": False}
    own = {"RAY_TMPDIR": str(tmp_path_factory.mktemp("own"))}
    with start_server(**own) as server:
        give_priority(driver_of(server))
        prepare(server)
        # On a busy machine Ray may not start at once; the next request starts it again.
        wait_until(lambda: server.ask("/api/generate", body, timeout=200)[0] == 200, 200)
        assert puna_nodes(own)
        parts = [pid for pid in parents() if runs_in(pid, own)]
        assert any(b"raylet" in command(each) for each in parts)
    wait_until(lambda: not set(parts) & parents().keys(), failure="the cluster outlives its server")


def test_a_wrong_address_is_a_clear_error(start_server):
    with start_server(RAY_ADDRESS="127.0.0.1:1") as server:
        prepare(server)
        text = json.loads(server.ask("/api/generate", {"model": "scripted", "prompt": "a"})[2])["error"]
        assert "the head 127.0.0.1:1 cannot be reached: Connection refused" in text


def test_a_machine_that_is_gone_is_passed_over_before_the_head_knows(make_cluster, start_server):
    never = {"RAY_health_check_period_ms": "1000000", "RAY_health_check_initial_delay_ms": "1000000"}
    with make_cluster(0, 1, 1, **never) as cluster, start_server(cluster) as server:
        prepare(server)
        assert answer(server) == "ab"
        # The model would go to this machine again, which has had its files.
        (gone,) = [each for each in cluster.nodes if each.actors()]
        unload(server)
        nothing_runs(cluster)
        gone.kill()
        assert answer(server) == "ab"
        assert not gone.actors()


def test_a_token_that_is_missing_is_a_clear_error(make_cluster, start_server, tmp_path):
    """Ray itself would try for 20 s, and not name it."""
    (tmp_path / "token").write_text("a" * 64)
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    with make_cluster(1, **token) as cluster:
        wrong = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN_PATH": token["RAY_AUTH_TOKEN_PATH"]}
        with start_server(cluster, **wrong) as server:
            prepare(server)
            text = error_of(server)
            assert f"the head {cluster.address} wants the token of its cluster" in text
            assert text.endswith("with RAY_AUTH_MODE=token")
        with start_server(cluster, RAY_AUTH_MODE="token", HOME=str(tmp_path)) as server:
            prepare(server)
            assert "RAY_AUTH_MODE is `token`, and there is no token" in error_of(server)
        # `ray start --head` uses a token that it finds, without being told, and so does the server.
        del token["RAY_AUTH_MODE"]
        with start_server(cluster, **token) as server:
            prepare(server)
            assert answer(server) == "ab"


def test_models_are_loaded_beside_each_other(make_cluster, start_server):
    with make_cluster(4) as cluster, start_server(cluster, PUNA_MAX_SILENT_LOAD_SECONDS="1000") as server:
        prepare(server)
        words = ("--file", MODELS / "reader.gguf", "--backend", "scripted", "--format", "scripted")
        command = (PUNA, "create", "stuck", *words, "--option", "load=stall")
        subprocess.run(command, env=os.environ | {"PUNA_GRPC_HOST": server.grpc}, check=True, timeout=60)
        with grpc.insecure_channel(server.grpc) as channel:
            stub = models_pb2_grpc.ModelsServiceStub(channel)
            loading = stub.LoadModel.future(models_pb2.LoadModelRequest(name="stuck"))
            wait_until(lambda: len(cluster.hosts()) == 1, 60)
            assert [answer(server), answer(server, "second")] == ["ab", "ab"]
            assert len(cluster.hosts()) == 3
            assert not loading.done()
            loading.cancel()
