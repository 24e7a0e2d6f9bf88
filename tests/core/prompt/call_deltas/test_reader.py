import pytest

from puna.messages import Tool
from puna.prompt.call_deltas.reader import LONGEST_HEAD, CallsReader, Notation
from puna.prompt.jinja.arguments import Schemas
from puna.prompt.layout import CallSyntax, JsonCall, OutputLayout
from puna.prompt.parsed import OpenCalls

TOOLS = [Tool(name="get"), Tool(name="get_all")]


MEMBERS = JsonCall()


def reading(json: JsonCall = MEMBERS, opened: OpenCalls | None = None, *, searches: bool = False) -> CallsReader:
    layout = OutputLayout(name="x", call_syntax=CallSyntax.JSON, call_start="<call>", call_end="</call>", json=json)
    notation = Notation(layout=layout, types=Schemas(TOOLS), searches=searches)
    made = notation.reader(opened or OpenCalls("", several=True), TOOLS)
    assert made is not None
    return made


def parts(reader: CallsReader, *texts: str) -> list[tuple[str, str, str]]:
    return [(call.name, call.id, part) for text in texts for call, part in reader.feed(text)]


def test_the_first_part_comes_with_the_beginning_of_the_arguments() -> None:
    reader = reading()
    assert parts(reader, '<call>{"name": "get"', ', "arguments": ') == []
    assert parts(reader, '{"a": 1', "}}</call>") == [("get", "", '{"a":'), ("get", "", "1}")]


def test_arguments_wait_for_a_name_that_comes_later() -> None:
    reader = reading()
    assert parts(reader, '{"arguments": {"a": 1}, ') == []
    assert parts(reader, '"name": "get"') == [("get", "", '{"a":1}')]


def test_arguments_wait_for_an_id_that_belongs_to_the_notation() -> None:
    reader = reading(JsonCall(id="id"))
    assert parts(reader, '{"name": "get", "arguments": {"a": 1}') == []
    assert parts(reader, ', "id": "c7"}') == [("get", "c7", '{"a":1}')]


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "function", "function": {"name": "get", "parameters": {"a": 1}}}',
        '{"name": "get", "parameters": {"a": 1}}',
    ],
)
def test_other_notations_of_json_are_read_as_the_parser_reads_them(text: str) -> None:
    assert parts(reading(), text) == [("get", "", '{"a":1}')]


def test_the_name_may_be_the_key() -> None:
    assert parts(reading(JsonCall(name="", arguments="")), '{"get": {"a": 1}}') == [("get", "", '{"a":1}')]
    assert parts(reading(JsonCall(name="")), '{"get": {"arguments": {}}}') == [("get", "", "{}")]


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "other", "arguments": {"a": 1}}',
        '{"name": "get", "arguments": "{}"}',
        '{"name": "get", "arguments": [1]}',
        'Text {"name": "get", "arguments": {}}',
        "<call>no JSON",
    ],
)
def test_everything_else_is_left_to_the_parser(text: str) -> None:
    assert parts(reading(), text) == []


def test_a_parser_that_searches_passes_over_text() -> None:
    assert parts(reading(searches=True), 'Text {"name": "get", "arguments": {}}') == [("get", "", "{}")]


def test_several_calls_follow_each_other() -> None:
    text = '[{"name": "get", "arguments": {}}, {"name": "get_all", "arguments": {}}]</call><call>{"name": "get", "ar'
    assert [name for name, _, _ in parts(reading(), text, 'guments": {"a": 1}}')] == ["get", "get_all", "get"]
    assert len(parts(reading(opened=OpenCalls("")), text)) == 1


def test_a_text_without_a_head_is_given_up() -> None:
    reader = reading()
    parts(reader, " " * (LONGEST_HEAD + 1))
    assert parts(reader, '{"name": "get", "arguments": {}}') == []


def test_arguments_behind_a_known_name() -> None:
    reader = reading(opened=OpenCalls("", "renamed.tool"))
    assert parts(reader, '{"a": "b', 'c"}<end>') == [("renamed.tool", "", '{"a":"b'), ("renamed.tool", "", 'c"}')]
    assert parts(reading(opened=OpenCalls("", "get")), '["a"]') == []
