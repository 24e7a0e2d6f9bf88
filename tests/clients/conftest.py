"""gRPC clients in five languages against real servers: `make test-clients` runs this folder. README.md describes it."""

import os

import pytest
from tests.clients import servers
from tests.clients.projects import PROTO, write_protoc
from tests.hosts.conftest import go_path  # noqa: F401 - a fixture
from tests.libraries.conftest import clients_python  # noqa: F401 - a fixture, which has Node.js
from tests.registry.conftest import docker  # noqa: F401 - a fixture

collect_ignore_glob = [] if os.environ.get("PUNA_CLIENTS") else ["test_*.py"]
collect_ignore = ["python"]  # runs in an environment of its own


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
    with servers.start_plain(store) as running:
        yield running


@pytest.fixture(scope="session")
def secure(store, tmp_path_factory):
    """A server with TLS and API keys."""
    with servers.start_secure(store, tmp_path_factory.mktemp("secure")) as running:
        yield running


@pytest.fixture(scope="session")
def slow_registry(docker):  # noqa: F811 - the fixture
    """The address of a front before docker-registry which takes its time."""
    with servers.slow_registry(docker) as address:
        yield address


@pytest.fixture(scope="module")
def variables(request, plain, secure, store, docker, slow_registry, tmp_path_factory):  # noqa: F811 - the fixture
    """The variables by which the tests of a client find the servers."""
    language = request.module.__name__.rpartition("test_")[2]
    folder, pulled = tmp_path_factory.mktemp(language), f"clients/{language}:v1"
    servers.push(folder, docker, pulled)
    return {
        "PUNA_ADDRESS": plain.grpc,
        "PUNA_SECURE_ADDRESS": secure.grpc,
        "PUNA_CA": str(secure.ca),
        "PUNA_API_KEY": secure.key,
        "PUNA_LIMITED_API_KEY": secure.limited_keys[language],
        "PUNA_SERVICE_CONFIG": str(PROTO / "service_config.json"),
        "PUNA_SERVE": str(servers.serve_script(folder, store)),
        "PUNA_PULL_MODEL": f"{slow_registry}/{pulled}",
    }
