"""GPUs of a Ray cluster. Ray counts those that it is told of, so no machine needs one; nvidia-smi alone is replaced."""

import os
from pathlib import Path

import pytest
from tests.e2e.server import MODELS

MEBIBYTES = 1040
"""Memory of each GPU. A small model takes up to half of it, since a process takes 512 MiB for itself."""
LARGE_BYTES = 430 << 20
"""The size of a file that does not fit into one GPU."""


@pytest.fixture
def search_path(tmp_path):
    """Makes a search path on which nvidia-smi is a script that tells the memory of GPUs."""

    def search_path(script):
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return os.pathsep.join([str(tmp_path), os.environ["PATH"]])

    return search_path


def visible_to(host):
    """The GPUs that a host sees."""
    variables = Path(f"/proc/{host}/environ").read_bytes().split(b"\0")
    (value,) = [each.partition(b"=")[2] for each in variables if each.startswith(b"CUDA_VISIBLE_DEVICES=")]
    return set(value.decode().split(","))


def prepare(server):
    server.upload("small", MODELS / "scripted.gguf", backend="scripted")
    server.upload("second", MODELS / "chatter.gguf", backend="scripted")
    server.upload("third", MODELS / "jinja.gguf", backend="scripted")
    files = {"weights": server.blob(bytes(LARGE_BYTES))}
    body = {"model": "large", "backend": "scripted", "format": "scripted", "files": files, "stream": False}
    server.json("/api/create", body)


def load(cluster, server, *names):
    """Load models; return the GPUs that the host of each sees."""
    found = {}
    for name in names:
        before = set(cluster.hosts())
        body = {"model": name, "prompt": "a", "raw": True, "stream": False}
        assert server.json("/api/generate", body)["response"] == "a"
        (host,) = set(cluster.hosts()) - before
        found[name] = visible_to(host)
    return found


def test_small_models_share_a_gpu_and_a_large_one_has_several(make_cluster, start_server, search_path):
    with make_cluster(2, PATH=search_path(f"printf '{MEBIBYTES}\\n{MEBIBYTES}\\n{MEBIBYTES}\\n'")) as cluster:
        cluster.add(4, gpus=3)
        with start_server(cluster) as server:
            prepare(server)
            found = load(cluster, server, "small", "large", "second")
            # All GPUs are taken, so one of the models leaves.
            assert len(load(cluster, server, "third")["third"]) == 1
            assert len(server.json("/api/ps")["models"]) == 3
    assert len(found["small"]) == 1
    assert found["second"] == found["small"]
    assert len(found["large"]) == 2
    assert not found["large"] & found["small"]


def test_a_machine_with_larger_gpus_takes_what_fits_into_one(make_cluster, start_server, search_path, tmp_path):
    """The machine that is asked first has small GPUs, the other one large ones."""
    script = f"mkdir {tmp_path}/asked 2>/dev/null && echo {MEBIBYTES} || echo {2 * MEBIBYTES}"
    with make_cluster(2, PATH=search_path(script)) as cluster:
        machines = cluster.add(4, gpus=2), cluster.add(4, gpus=2)
        with start_server(cluster) as server:
            prepare(server)
            found = load(cluster, server, "large", "small", "second")
            hosts = sorted(len(each.actors()) for each in machines)
    assert [len(each) for each in found.values()] == [1, 1, 1]
    assert hosts == [1, 2]
