"""Nodes that do not see the models of their server, and get them over the network."""

import hashlib

import pytest
from tests.e2e.server import MODELS, serving

ELSEWHERE = "/proc/self/cwd"
"""A path below it exists for a process in that folder alone, as on machines that share no disk."""


@pytest.fixture
def start_server(tmp_path, cluster):
    def start(*nodes, **more):
        settings = {
            "PUNA_LAUNCHER": "static",
            "PUNA_HOSTS": ",".join(each.address for each in nodes),
            "PUNA_CLUSTER_TLS": str(cluster / "core"),
        }
        return serving(f"{ELSEWHERE}/models", cwd=tmp_path, **(settings | {"PUNA_BATCHES": str(tmp_path / "b")} | more))

    return start


def answer(server, model="llamita"):
    body = {"model": model, "prompt": "Hi", "stream": False, "options": {"num_predict": 4}}
    return server.json("/api/generate", body)


def test_a_node_without_the_models_serves_them(start_node, start_server, tmp_path):
    cache = tmp_path / "cache"
    with start_node(PUNA_NODE_CACHE=str(cache)) as node, start_server(node) as server:
        server.upload("llamita", MODELS / "chatter.gguf")
        assert answer(server)["done"]
        assert len(node.hosts()) == 1
    (file,) = (cache / "files").iterdir()
    assert f"sha256-{hashlib.sha256(file.read_bytes()).hexdigest()}" == file.name
    assert (tmp_path / "models" / "blobs" / file.name).exists()
