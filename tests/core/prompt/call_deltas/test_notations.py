import pytest

from puna.capabilities import PARSERS
from puna.messages import Tool
from puna.prompt.builtin.registry import parser
from puna.prompt.call_deltas import notations
from puna.prompt.call_deltas.json_scanner import UnreadableJsonError
from puna.prompt.parsed import OpenCalls, ShowsOpenCalls

TOOLS = [Tool(name="get", parameters='{"properties": {"text": {"type": "string"}, "n": {"type": "integer"}}}')]
WHOLE = {
    "gemma4",
    "gemma4-no-thinking",
    "functiongemma",
    "lfm2",
    "lfm2-thinking",
    "olmo3",
    "olmo3-think",
    "passthrough",
}
"""Parsers whose calls come in one delta: their notations have no part that is certain before the end, or no calls."""


@pytest.mark.parametrize("name", PARSERS)
def test_each_builtin_parser_shows_its_open_calls_or_is_known_not_to(name: str) -> None:
    shows = isinstance(parser(name), ShowsOpenCalls)
    assert shows == (name not in WHOLE)
    if shows:
        notation = notations.of_parser(name, TOOLS)
        assert notation is not None
        assert notation.reader(OpenCalls(""), TOOLS) is not None


def test_builtin_types_know_null_and_take_a_text_for_a_parameter_without_a_type() -> None:
    types = notations.BuiltinTypes(TOOLS)
    assert [types.only_text("get", key) for key in ("text", "n", "unknown")] == [True, False, True]
    assert types.value("get", "n", "2") == 2
    assert types.value("get", "text", "NULL") is None


def test_a_value_with_tags_is_left_to_a_parser_that_mends() -> None:
    types = notations.MendedTypes(TOOLS)
    assert types.value("get", "text", "a<b") == "a<b"
    with pytest.raises(UnreadableJsonError):
        types.value("get", "text", "a</arg_key>b")
