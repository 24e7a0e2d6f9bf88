"""gRPC clients in five languages against real servers: `make test-clients` runs this folder. README.md describes it."""

import os

import pytest
from tests.clients import servers
from tests.clients.projects import write_protoc
from tests.hosts.conftest import go_path  # noqa: F401 - a fixture
from tests.libraries.conftest import clients_python  # noqa: F401 - a fixture, which has Node.js
from tests.registry.conftest import docker  # noqa: F401 - a fixture

collect_ignore_glob = [] if os.environ.get("PUNA_CLIENTS") else ["test_*.py"]


@pytest.fixture(scope="session")
def protoc(tmp_path_factory):
    """The path of a program `protoc`."""
    return write_protoc(tmp_path_factory.mktemp("protoc"))


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """The store of all servers, with the models that README.md lists."""
    folder = tmp_path_factory.mktemp("store") / "models"
    servers.stock(folder)
    return folder


@pytest.fixture(scope="session")
def plain(store):
    """A server without TLS and keys."""
    with servers.start(store) as running:
        yield running


@pytest.fixture(scope="session")
def secure(store, tmp_path_factory):
    """A server with TLS and API keys."""
    with servers.start_secure(store, tmp_path_factory.mktemp("secure")) as running:
        yield running


@pytest.fixture(scope="module")
def variables(request, plain, secure, store, docker, tmp_path_factory):  # noqa: F811 - the fixture
    """The variables by which the tests of a client find the servers."""
    language = request.module.__name__.rpartition("test_")[2]
    folder = tmp_path_factory.mktemp(language)
    return {
        "PUNA_ADDRESS": plain.grpc,
        "PUNA_SECURE_ADDRESS": secure.grpc,
        "PUNA_CA": str(secure.ca),
        "PUNA_API_KEY": secure.key,
        "PUNA_LIMITED_API_KEY": secure.limited_keys[language],
        "PUNA_SERVE": str(servers.serve_script(folder, store)),
        "PUNA_PULL_MODEL": servers.push(folder, f"{docker}/clients/{language}:v1"),
    }
