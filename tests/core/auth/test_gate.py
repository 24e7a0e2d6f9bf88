"""Who is admitted."""

import pytest

from puna.auth.errors import NotExposedError, PermissionDeniedError, UnauthenticatedError
from puna.auth.gate import Gate, given_key
from puna.auth.keys import KeyFile

CHAT = "/puna.v1.ChatService/Chat"
LIST = "/puna.v1.ModelsService/ListModels"
PULL = "/puna.v1.ModelsService/PullModel"
HEALTH = "/grpc.health.v1.Health/Check"


@pytest.fixture
def keys(tmp_path):
    return KeyFile(tmp_path / "keys.json")


def admit(gate, method, metadata=None, *, local=False):
    return gate.admit(method, metadata or {}, local=local, bridge=False)


def test_an_open_gate_lets_everyone_in(keys):
    caller = admit(Gate(keys), CHAT, {"authorization": "Bearer ollama"})
    assert caller.key is None
    assert caller.may_prioritise
    assert not caller.may_name_files


def test_a_closed_gate_wants_a_valid_key(keys):
    key, text = keys.create(name="shop")
    gate = Gate(keys)
    for metadata in ({}, {"authorization": text}, {"authorization": "Basic eDp5"}, {"authorization": "Bearer "}):
        with pytest.raises(UnauthenticatedError, match="needs an API key"):
            admit(gate, CHAT, metadata)
    with pytest.raises(UnauthenticatedError, match="not valid"):
        admit(gate, CHAT, {"authorization": "Bearer sk-0"})
    assert admit(gate, CHAT, {"authorization": f"Bearer {text}"}).key == key


@pytest.mark.parametrize("name", ["x-api-key", "api-key"])
def test_other_headers_of_clients(keys, name):
    key, text = keys.create(name="shop")
    assert admit(Gate(keys), CHAT, {name: text}).key == key


def test_a_key_opens_what_it_allows(keys):
    _, text = keys.create(name="shop", allow=("inference",))
    gate, metadata = Gate(keys), {"authorization": f"bearer {text}"}
    admit(gate, CHAT, metadata)
    admit(gate, LIST, metadata)
    with pytest.raises(PermissionDeniedError, match="'shop' lacks the permission 'models'"):
        admit(gate, PULL, metadata)


def test_the_unix_socket_and_the_health_check_need_none(keys):
    keys.create(name="shop")
    gate = Gate(keys)
    assert admit(gate, PULL, local=True).may_name_files
    admit(gate, HEALTH)


def test_only_what_is_exposed(keys):
    gate = Gate(keys, expose=("generate", "chat"))
    admit(gate, CHAT)
    admit(gate, HEALTH)
    for method in (LIST, PULL, "/puna.v1.EmbedService/Embed"):
        with pytest.raises(NotExposedError):
            admit(gate, method)
    admit(gate, PULL, local=True)


def test_a_binary_header_is_no_key():
    assert given_key({"authorization": b"Bearer x"}) == ""
