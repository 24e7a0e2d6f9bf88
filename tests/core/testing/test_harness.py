"""What a contract test class does with its model and its manifest."""

from contextlib import asynccontextmanager

import pytest
from tests.core.testing.test_answers import FINISH, Fixed

from puna.backend import Backend, TextDelta
from puna.testing import ContractBase

MANIFEST = """
contract = 1
name = "fixed"
formats = ["fixed"]
[capabilities]
constraints = ["regex"]
sampling = ["seed"]
"""


class FixedBackend(Backend):
    loads = 0

    async def load(self, spec, report, /):
        type(self).loads += 1
        return Fixed(TextDelta("a"), FINISH)


class Contract(ContractBase):
    backend_class = FixedBackend

    def spec(self):
        return None

    @classmethod
    def changed(cls, **values):
        return type("Changed", (cls,), values)()

    async def nothing(self, model):
        pass

    async def failing(self, model):
        raise AssertionError("it fails")

    def loaded(self):
        # A spec of None has no fields to change.
        return closing(FixedBackend())


def closing(backend):
    @asynccontextmanager
    async def load():
        yield await backend.load(None, lambda _: None)

    return load()


def test_the_tests_of_a_class_share_a_model():
    FixedBackend.loads = 0
    one, other = Contract.changed(), Contract.changed()
    for each in (one, one, other):
        each.run(each.nothing)
    assert FixedBackend.loads == 2
    for each in (one, other):
        each.teardown_class()


def test_a_failed_test_leaves_no_model():
    FixedBackend.loads = 0
    contract = Contract.changed()
    with pytest.raises(AssertionError, match="it fails"):
        contract.run(contract.failing)
    contract.run(contract.nothing)
    assert FixedBackend.loads == 2
    contract.teardown_class()


def test_without_a_manifest_everything_is_tried_and_nothing_declared():
    contract = Contract.changed()
    assert contract.obeys("top_k")
    assert not contract.declares("logprobs")


def test_a_manifest_says_what_is_tried(tmp_path):
    path = tmp_path / "backend.toml"
    path.write_text(MANIFEST)
    contract = Contract.changed(manifest=path)
    assert contract.obeys("seed")
    assert not contract.obeys("top_k")
    assert contract.declares("regex")
    contract.check_may_lack("logprobs")
    with pytest.raises(AssertionError, match="declared"):
        contract.check_may_lack("regex")
