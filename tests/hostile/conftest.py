"""A server for the attacks of one module, with the scripted models in its store; the time of properties."""

import contextlib

import grpc
import pytest
from tests.e2e.server import MODELS, serving
from tests.hostile import fuzz
from tests.hostile.started import Started, stocked

TIME = pytest.StashKey()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with `scripted` and `embedder`, to be attacked and to survive."""
    with serving(tmp_path_factory.mktemp("home") / "models") as running:
        running.upload("scripted", MODELS / "scripted.gguf")
        running.upload("embedder", MODELS / "embedder.gguf")
        yield running


@pytest.fixture
def channel(server):
    """A channel to the server, for messages of any length."""
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(server.grpc, options) as channel:
        yield channel


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark properties, so that `-m fuzz` selects them."""
    for item in items:
        if fuzz.is_fuzz(item) and "hostile" in item.path.parts:
            item.add_marker("fuzz")


def pytest_collection_finish(session):
    """Divide the time among the properties."""
    count = sum(item.get_closest_marker("fuzz") is not None for item in session.items)
    session.config.stash[TIME] = fuzz.Budget(fuzz.SECONDS, count)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Repeat a property for its share of the time, if there is a time."""
    if not fuzz.SECONDS or pyfuncitem.get_closest_marker("fuzz") is None:
        return None
    with pyfuncitem.config.stash[TIME].share() as seconds:
        fuzz.repeat(pyfuncitem, seconds)
    return True


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """A store with a model that does what the prompt says."""
    return stocked(tmp_path_factory.mktemp("home") / "models")


@pytest.fixture
def start(store):
    """Starts processes of ours over this store, which are closed at the end."""
    with contextlib.ExitStack() as exits:

        def start(*command, **environment):
            process = Started(*command, store=store, **environment)
            exits.callback(process.close)
            return process

        yield start
