import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.prompt.jinja.samples import ANSWERS, BOS, EOS, TEMPLATES, TOOLS

from puna.messages import Message, Think
from puna.prompt.jinja.parser import OutputParser
from puna.prompt.jinja.template import ChatTemplate
from puna.prompt.layout import CallSyntax, OutputLayout

USER = Message(role="user", content="hi")
HERMES = OutputLayout(
    name="hermes",
    thinks=True,
    thinking_start="<think>\n",
    thinking_end="\n</think>\n\n",
    call_syntax=CallSyntax.JSON,
    call_start="<tool_call>\n",
    call_end="</tool_call>",
)
CASES = [
    pytest.param(each["name"], answer, id=f"{each['name']}-{index}")
    for each in ANSWERS
    for index, answer in enumerate(each["answers"])
]


def parse(parser, pieces):
    events, last = [], None
    for piece in [*pieces, None]:
        last = parser.finish() if piece is None else parser.feed(piece)
        events += [["t", last.thinking]] if last.thinking else []
        events += [["c", last.content]] if last.content else []
    return events, last.calls


def joined(events, kind):
    return "".join(text for each, text in events if each == kind)


@pytest.mark.parametrize(("name", "answer"), CASES)
def test_an_answer_comes_in_ollama_s_chunks(name, answer):
    template = ChatTemplate(TEMPLATES[name], BOS, EOS)
    parser = template.parser([USER], TOOLS if answer["tools"] else (), think=Think(True))
    events, calls = parse(parser, answer["pieces"])
    assert events == answer["events"]
    assert [(each.name, json.loads(each.arguments)) for each in calls] == [
        (each["name"], each["arguments"]) for each in answer["calls"]
    ]


def test_calls_have_ids_of_32_letters_and_digits_and_an_index():
    text = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
    _, calls = parse(OutputParser(HERMES, TOOLS), [text + "\n" + text])
    assert [each.index for each in calls] == [0, 1]
    assert all(len(each.id) == 32 and each.id.isalnum() for each in calls)
    assert calls[0].id != calls[1].id


def test_a_call_s_own_id_is_kept():
    layout = OutputLayout(name="m", call_syntax=CallSyntax.JSON, section_start="[TOOL_CALLS] ", json=HERMES.json)
    template = ChatTemplate(TEMPLATES["mistral"])
    text = '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1}, "id": "abcdefghi"}]'
    assert template.layout(tools=True).section_start.strip() == layout.section_start.strip()
    _, calls = parse(template.parser([USER], TOOLS), [text])
    assert [each.id for each in calls] == ["abcdefghi"]


def test_without_tools_everything_is_content():
    events, calls = parse(OutputParser(HERMES, ()), ["<tool_call>\n{}", "</tool_call>"])
    assert joined(events, "c") == "<tool_call>\n{}</tool_call>"
    assert calls == ()


def test_thinking_that_never_ends_is_thinking():
    events, _ = parse(OutputParser(HERMES, ()), ["<think>", "\nall of", " it</th"])
    assert events == [["t", "all of"], ["t", " it"], ["t", "</th"]]


def test_empty_thinking_is_none():
    events, _ = parse(OutputParser(HERMES, (), "<think>\n\n</think>\n\n"), ["yes"])
    assert events == [["c", "yes"]]


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>\n{no json}\n</tool_call>",
        '<tool_call>\n{"name": "add", "arguments": {"a": ',
        "<tool_call>\n[1, 2]</tool_call>",
        "<tool_call>",
        "<tool_c",
        '<tool_call>{"name": 5, "arguments": {}}</tool_call>',
    ],
)
def test_what_is_no_call_after_all_is_content(text):
    events, calls = parse(OutputParser(HERMES, TOOLS), ["Well: ", text])
    assert joined(events, "c") == "Well: " + text
    assert calls == ()


def test_a_call_is_read_without_the_line_end_that_the_template_writes():
    _, calls = parse(OutputParser(HERMES, TOOLS), ['<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'])
    assert [each.arguments for each in calls] == ['{"a":1}']


def test_text_after_a_call_is_content():
    text = '<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call>\nDone.'
    events, calls = parse(OutputParser(HERMES, TOOLS), [text])
    assert (joined(events, "c"), len(calls)) == ("Done.", 1)


def test_markers_after_a_call_are_dropped():
    text = '<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call><|eom|>\n'
    assert parse(OutputParser(HERMES, TOOLS), [text])[0] == []


def test_a_bare_object_that_is_no_call_streams_on():
    parser = OutputParser(OutputLayout(name="bare", call_syntax=CallSyntax.JSON), TOOLS)
    assert parser.feed("{").content == ""
    assert parser.feed('"colour": 1').content == '{"colour": 1'
    assert parser.feed("}").content == "}"


def test_a_bare_object_with_the_name_of_no_tool_is_content():
    text = '{"name": "Ada", "parameters": {}}'
    events, calls = parse(OutputParser(OutputLayout(name="bare", call_syntax=CallSyntax.JSON), TOOLS), [text])
    assert (joined(events, "c"), calls) == (text, ())


PARTS = st.sampled_from(
    ["<think>", "\n", "</think>", "<tool_call>", "</tool_call>", "{", "}", '"name": ', '"add"', "<", "t", " é "]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(PARTS, max_size=12), st.data())
def test_how_a_text_is_cut_does_not_matter(parts, data):
    text = "".join(parts)
    points = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *points], [*points, len(text)], strict=True)]
    whole, calls = parse(OutputParser(HERMES, TOOLS), [text])
    cut, same_calls = parse(OutputParser(HERMES, TOOLS), pieces)
    for kind in "tc":
        assert joined(cut, kind) == joined(whole, kind)
    assert [(each.name, each.arguments) for each in calls] == [(each.name, each.arguments) for each in same_calls]
