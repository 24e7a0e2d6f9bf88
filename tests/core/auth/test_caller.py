"""What the caller of a request may do, and where the request's code finds it."""

import asyncio

import pytest

from puna.auth.caller import Caller, current, enter
from puna.auth.errors import ModelNotAllowedError
from puna.auth.gate import Gate
from puna.auth.keys import ApiKey, KeyFile

KEY = ApiKey(id="1", name="shop", digest="", models=("llamita",))


def test_without_a_gate_everything_is_allowed():
    caller = current()
    assert caller.may_name_files
    assert caller.may_prioritise
    assert caller.bridge
    caller.check_model("any:latest")


def test_a_key_hides_the_other_models():
    caller = Caller(key=KEY)
    assert caller.sees("llamita:latest")
    with pytest.raises(ModelNotAllowedError, match="'other:latest'"):
        caller.check_model("other:latest")
    assert not caller.may_prioritise


async def test_a_caller_belongs_to_its_task():
    """Two requests run at once on one event loop."""
    both = asyncio.Barrier(2)

    async def request(caller):
        enter(caller)
        await both.wait()
        assert current() is caller
        assert await asyncio.to_thread(current) is caller

    await asyncio.gather(request(Caller(key=KEY)), request(Caller(local=True)))
    assert current().bridge


def test_usage_of_one_key_or_of_all(tmp_path):
    keys = KeyFile(tmp_path / "keys.json")
    shop, _ = keys.create(name="shop")
    boss, _ = keys.create(name="boss", allow=("all",))
    gate = Gate(keys)
    Caller(key=shop, gate=gate).spend(3, 4)
    assert [(key.name, counts.day_tokens) for key, counts in Caller(key=shop, gate=gate).usage()] == [("shop", 7)]
    for caller in (Caller(key=boss, gate=gate), Caller(local=True, gate=gate)):
        assert [key.name for key, _ in caller.usage()] == ["shop", "boss"]
