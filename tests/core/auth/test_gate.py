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


@pytest.mark.parametrize(
    "method", ["/puna.v1.DiagnosticsService/StreamLogs", "/puna.v1.ServerService/ReloadConfiguration"]
)
def test_on_an_open_server_that_others_can_reach_some_methods_are_for_the_socket(keys, method):
    gate = Gate(keys)
    admit(gate, method)
    gate.reachable = True
    with pytest.raises(PermissionDeniedError, match="on its Unix socket alone"):
        admit(gate, method)
    admit(gate, method, local=True)
    admit(gate, CHAT)
    _, text = keys.create(name="operator", allow=("all",))
    admit(gate, method, {"authorization": f"Bearer {text}"})


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


def test_a_request_of_a_batch_has_the_rights_of_its_key(keys):
    key, _ = keys.create(name="shop", models=("a",))
    caller = Gate(keys).resume(key.id, CHAT, local=False)
    assert (caller.key, caller.background, caller.bridge) == (key, True, False)
    with pytest.raises(PermissionDeniedError):
        Gate(keys).resume(key.id, PULL, local=False)
    with pytest.raises(NotExposedError):
        Gate(keys, expose=("embed",)).resume(key.id, CHAT, local=False)


def test_a_request_of_a_batch_ends_with_its_key(keys):
    key, _ = keys.create(name="shop")
    keys.revoke(key.id)
    gate = Gate(keys)
    # The second was made without a key, before there were any.
    for id_ in (key.id, ""):
        with pytest.raises(UnauthenticatedError):
            gate.resume(id_, CHAT, local=False)
    assert gate.resume("", CHAT, local=True).local


def test_a_request_of_a_batch_needs_no_key_where_no_one_does(keys):
    assert Gate(keys).resume("", CHAT, local=False).key is None
    with pytest.raises(UnauthenticatedError):
        Gate(keys).resume("gone", CHAT, local=False)


def test_calls_about_batches_count_against_no_limit(keys):
    key, text = keys.create(name="shop", requests_per_minute=1)
    gate = Gate(keys)
    caller = admit(gate, "/puna.v1.BatchService/GetBatch", {"authorization": f"Bearer {text}"})
    for _ in range(3):
        with gate.counted("/puna.v1.BatchService/GetBatch", caller):
            pass
    assert gate.ledger.counts(key.id).requests == 0
