"""A server whose models run on a Ray cluster of three nodes."""

import pytest
from tests.e2e.server import MODELS, wait_until


@pytest.fixture(scope="module")
def cluster(make_cluster):
    with make_cluster(1, 2, 2) as cluster:
        yield cluster


def test_a_chat(cluster, start_server):
    with start_server(cluster) as server:
        server.upload("scripted", MODELS / "scripted.gguf", backend="scripted")
        body = {"model": "llamita", "messages": [{"role": "user", "content": "Hi"}], "stream": False}
        assert server.json("/api/chat", body)["message"]["content"]
        assert server.hosts() == []
        assert len(cluster.hosts()) == 1
    wait_until(lambda: not cluster.actors(), failure="actors are left")
