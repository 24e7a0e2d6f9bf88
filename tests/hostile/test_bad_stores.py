"""A store that cannot be used keeps a server from starting, and one that goes away makes it unhealthy, not broken."""

import os
import subprocess
import sys
from contextlib import contextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.e2e.server import MODELS, serving

from puna_client.v1 import models_pb2, models_pb2_grpc

OBEY_MODES = """
import ctypes, os, sys
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""A program that takes from root the right to overrule the modes of files, then becomes another Python program.

It does not run between fork and exec: gRPC's handlers of a fork abort a process whose other threads are in gRPC.
"""
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def refused(store, command="serve"):
    """Start a server that must end by itself; return what it says."""
    done = subprocess.run(
        [sys.executable, "-c", OBEY_MODES, "-P", "-m", "puna", command],
        env=os.environ | {"OLLAMA_HOST": "127.0.0.1:0", "PUNA_GRPC_HOST": "127.0.0.1:0", "OLLAMA_MODELS": str(store)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr.splitlines()[-1]


def test_a_store_that_cannot_be_used_keeps_a_server_from_starting(tmp_path):
    file = tmp_path / "file"
    file.write_text("no folder")
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "nowhere")
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    locked = tmp_path / "locked"
    locked.mkdir(mode=0)
    half = tmp_path / "half"
    half.mkdir()
    (half / "manifests").write_text("no folder")
    sealed = tmp_path / "sealed"
    sealed.mkdir(mode=0o555)
    for store, why in (
        (file, "not a directory"),
        (file / "below", "not a directory"),
        (dangling, f"it is a link to {tmp_path / 'nowhere'}, which does not exist"),
        (circle, ""),
        (locked, "permission denied"),
        (half, "not a directory"),
        (sealed / "models", "permission denied"),
    ):
        line = refused(store)
        assert line.startswith(f"Error: the store {store} cannot be used: {why}"), line
        assert line.endswith(". OLLAMA_MODELS chooses another folder")


def health(channel):
    request = health_pb2.HealthCheckRequest(service="puna.v1.GenerateService")
    return health_pb2_grpc.HealthStub(channel).Check(request, timeout=5).status


@contextmanager
def away(store, stand_in):
    """Move a store away, with something else in its place or nothing."""
    kept = store.with_name("kept")
    store.rename(kept)
    stand_in(store)
    yield
    store.unlink(missing_ok=True)
    kept.rename(store)


def test_a_store_that_goes_away_makes_the_server_unhealthy_until_it_is_back(tmp_path):
    with serving(tmp_path / "models") as server, grpc.insecure_channel(server.grpc) as channel:
        server.upload("scripted", MODELS / "scripted.gguf")
        before = server.json("/api/tags")
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
        assert next(watch).status == health(channel) == SERVING
        for stand_in in (lambda path: None, lambda path: path.touch(), lambda path: path.symlink_to("nowhere")):
            with away(server.store, stand_in):
                assert health(channel) == NOT_SERVING
                assert next(watch).status == NOT_SERVING
                for path, body in (
                    ("/api/tags", None),
                    ("/v1/models", None),
                    ("/api/show", {"model": "scripted"}),
                    ("/api/generate", {"model": "scripted", "prompt": "a"}),
                    ("/api/embed", {"model": "scripted", "input": "a"}),
                ):
                    status, _, text = server.ask(path, body)
                    assert status == 500, (path, text)
                    assert str(server.store).encode() in text
                with pytest.raises(grpc.RpcError) as caught:
                    models_pb2_grpc.ModelsServiceStub(channel).ListModels(models_pb2.ListModelsRequest(), timeout=5)
                assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
                assert server.json("/api/version")["version"]
            assert health(channel) == SERVING
            assert next(watch).status == SERVING
            assert server.json("/api/tags") == before
        watch.cancel()


def test_unknown_services_are_not_found(tmp_path):
    with serving(tmp_path / "models") as server, grpc.insecure_channel(server.grpc) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=5)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="nobody"), timeout=30)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        watch.cancel()
