"""A server notices what is installed, upgraded and removed while it runs. Loaded models go on."""

import grpc
import pytest
from tests.environments.conftest import answer, create, write_plugin

from puna_client.v1 import server_pb2, server_pb2_grpc


@pytest.fixture
def server(place, tmp_path):
    with place.serving(tmp_path / "models") as running:
        yield running


def test_from_installation_to_removal(server, place, tmp_path):
    source = write_plugin(tmp_path / "echo", "echo", text="first")
    assert "echo" not in backends(server)
    place.plugin("install", source)
    assert "echo" in backends(server)
    create(server, "m", "echo")
    assert answer(server, "m") == "first "

    write_plugin(source, "echo", text="second", version="2.0")
    place.plugin("upgrade", "echo")
    assert answer(server, "m") == "first "
    server.json("/api/generate", {"model": "m", "keep_alive": 0})
    assert answer(server, "m") == "second "

    place.plugin("remove", "puna-echo")
    assert answer(server, "m") == "second "
    assert len(place.leftovers()) == 1
    server.json("/api/generate", {"model": "m", "keep_alive": 0})
    assert "backend 'echo' is not installed" in answer(server, "m")
    # Nothing runs from the last environment now, so the next change removes it.
    place.plugin("remove", "echo", status=1)
    assert place.leftovers() == set()


def test_a_host_imports_the_rest_of_its_version_after_an_upgrade(server, place, tmp_path):
    source = write_plugin(tmp_path / "echo", "echo", text="first")
    place.plugin("install", source)
    create(server, "m", "echo")
    # Loads the model. The module `late` is imported by the first sequence only.
    server.json("/api/generate", {"model": "m"})
    write_plugin(source, "echo", text="second")
    place.plugin("upgrade")
    assert answer(server, "m") == "first "


def backends(server):
    """Return the names of the backends that the server lists."""
    with grpc.insecure_channel(server.grpc) as channel:
        info = server_pb2_grpc.ServerServiceStub(channel).GetServerInfo(server_pb2.GetServerInfoRequest())
    return {each.name for each in info.backends}
