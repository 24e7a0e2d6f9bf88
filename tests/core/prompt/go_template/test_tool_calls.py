import json
from pathlib import Path
from typing import Any

import pytest

from puna.messages import Tool, ToolCall
from puna.prompt.go_template.answer import GoTemplateParser
from puna.prompt.go_template.thinking import ThinkingParser
from puna.prompt.go_template.tool_calls import ToolCallParser

STREAMS = json.loads((Path(__file__).parent / "streams.json").read_text())
TOOLS = [Tool(name=name) for name in ("get_weather", "get", "add", "get_weather_now")]


def parse(tag: str, *pieces: str) -> tuple[list[ToolCall], list[str]]:
    parser = ToolCallParser(TOOLS, tag)
    deltas = [*[parser.feed(piece) for piece in pieces], parser.finish()]
    return [call for delta in deltas for call in delta.calls], [delta.content for delta in deltas]


@pytest.mark.parametrize("case", STREAMS, ids=range(len(STREAMS)))
def test_a_stream_is_parted_piece_by_piece_as_ollama_parts_it(case: dict[str, Any]) -> None:
    thinking = ThinkingParser("<think>", "</think>") if case["think"] else None
    parser = GoTemplateParser(thinking, ToolCallParser(TOOLS, case["tag"]) if case["tools"] else None)
    chunks: list[list[Any]] = []
    for delta in [*map(parser.feed, case["pieces"]), parser.finish()]:
        # One chunk never has both: content wins, as the server's answers do.
        calls = [] if delta.content else [[call.name, json.loads(call.arguments), call.index] for call in delta.calls]
        if delta.content or delta.thinking or calls:
            chunks.append([delta.content, delta.thinking, calls])
    assert chunks == case["chunks"]


def test_a_name_waits_until_it_cannot_become_a_longer_one() -> None:
    calls, _ = parse("<tool_call>", "<tool_call>get_weather", "_now", '({"a": 1})')
    assert calls == [ToolCall(name="get_weather_now", arguments='{"a":1}')]


def test_arguments_may_come_before_the_name_and_as_text() -> None:
    calls, _ = parse("{", '{"parameters": "{\\"city\\": \\"Rome\\"}", "name": "get"}')
    assert calls == [ToolCall(name="get", arguments='{"city":"Rome"}')]


@pytest.mark.parametrize("other", ["tool_call", "call", "name", "arguments", "city", "Rome", "weather"])
def test_the_name_that_a_call_states_wins_over_other_places_of_tool_names(other: str) -> None:
    text = '{"name": "get_weather", "arguments": {"city": "Rome"}}'
    parser = ToolCallParser([Tool(name=other), *TOOLS], "<tool_call>")
    calls = [parser.feed(f"<tool_call>\n{text}\n</tool_call>\n").calls for _ in range(2)]
    expected = [ToolCall(name="get_weather", arguments='{"city":"Rome"}', index=index) for index in range(2)]
    assert calls == [(call,) for call in expected]


def test_a_call_of_a_tool_that_is_named_like_the_tag() -> None:
    parser = ToolCallParser([Tool(name="tool_call"), *TOOLS], "<tool_call>")
    calls = parser.feed('<tool_call>{"name": "tool_call", "arguments": {"name": "get"}}</tool_call>').calls
    assert calls == (ToolCall(name="tool_call", arguments='{"name":"get"}'),)


@pytest.mark.parametrize("other", ["tool_call", "call", "city", "Rome", "arguments"])
def test_a_call_of_an_unknown_tool_goes_to_no_other_tool(other: str) -> None:
    parser = ToolCallParser([Tool(name=other), Tool(name="get_weather")], "<tool_call>")
    unknown = '<tool_call>{"name": "nope", "arguments": {"city": "Rome"}}</tool_call>'
    known = '<tool_call>{"name": "get_weather", "arguments": {}}</tool_call>'
    assert parser.feed(unknown).calls == ()
    assert parser.feed(known).calls == (ToolCall(name="get_weather", arguments="{}"),)


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "functions.get_weather", "arguments": {"city": "Rome"}}',
        'get_weather {"name": "Ada", "arguments": {"city": "Rome"}}',
        '{"get_weather": {"city": "Rome"}}',
    ],
)
def test_a_name_may_have_a_prefix_or_stand_elsewhere(text: str) -> None:
    calls, _ = parse("<tool_call>", f"<tool_call>{text}")
    assert calls == [ToolCall(name="get_weather", arguments='{"city":"Rome"}')]


def test_numbers_of_arguments_are_floats_as_go_writes_them() -> None:
    calls, _ = parse(
        "<tool_call>", '<tool_call>{"name": "add", "arguments": {"a": 1.0, "b": 1e30, "c": 12345678901234567}}'
    )
    assert calls[0].arguments == '{"a":1,"b":1e+30,"c":12345678901234568}'


def test_a_call_without_usable_arguments_is_none() -> None:
    assert parse("<tool_call>", '<tool_call>{"name": "add", "arguments": [1]}') == ([], ["", ""])


def test_text_before_a_bare_bracket_makes_everything_content() -> None:
    calls, contents = parse("{", "Hm. ", '{"name": "add", "arguments": {}}')
    assert (calls, "".join(contents)) == ([], 'Hm. {"name": "add", "arguments": {}}')


def test_an_unknown_tool_vanishes_after_a_real_tag_and_stays_after_a_bare_one() -> None:
    text = '{"name": "nope", "arguments": {}}'
    assert "".join(parse("<tool_call>", f"<tool_call>{text}")[1]) == ""
    assert "".join(parse("{", text)[1]) == text
    mentioning = '{"name": "nope", "arguments": {"get": "add"}}'
    assert parse("{", mentioning) == ([], [mentioning, ""])


def test_what_was_held_back_at_the_end_comes_back_only_for_a_bare_bracket() -> None:
    assert parse("{", '{"name": "ad')[1] == ["", '{"name": "ad']
    assert parse("<tool_call>", "so <tool")[1] == ["so ", ""]
