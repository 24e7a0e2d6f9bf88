"""The comments of the .proto files name reasons that exist, and the statuses that go with them."""

import re
from pathlib import Path

import grpc
import pytest
from tools.list_reasons import kinds

from puna.rpc.status import code_of

FILES = sorted((Path(__file__).parents[2] / "proto" / "puna" / "v1").glob("*.proto"))
CODES = {each.name for each in grpc.StatusCode}
BY_REASON = {kind.reason: code_of(kind.__new__(kind)).name for kind in kinds()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_status_in_a_comment_has_reasons_of_its_own(path):
    text = re.sub(r"\n\s*//", "", path.read_text())
    for code, inside in re.findall(r"\b([A-Z_]{5,}) \(([^)]*)\)", text):
        if code in CODES:
            named = re.findall(r"\b[A-Z][A-Z_]{3,}\b", inside)
            assert {reason: BY_REASON.get(reason) for reason in named} == dict.fromkeys(named, code)


def test_every_reason_has_a_meaning_and_a_status():
    assert len(BY_REASON) > 40
    assert not [kind.__name__ for kind in kinds() if not kind.__doc__ and not kind.__name__.startswith("_")]


def test_a_reason_has_one_status():
    for kind in kinds():
        assert code_of(kind.__new__(kind)).name == BY_REASON[kind.reason], kind.__name__
