import json

import pytest

from puna.messages import Tool
from puna.prompt.jinja.calls import read_calls
from puna.prompt.layout import CallSyntax, JsonCall, OutputLayout, TaggedCall

TOOLS = [
    Tool(name="get", parameters='{"properties": {"n": {"type": "integer"}}}'),
    Tool(name="get_all"),
]
JSON = OutputLayout(name="j", call_syntax=CallSyntax.JSON, call_start="<c>", call_end="</c>")
BARE = OutputLayout(name="b", call_syntax=CallSyntax.JSON)
TAGGED = OutputLayout(
    name="t",
    call_syntax=CallSyntax.TAGGED,
    call_start="<c>",
    call_end="</c>",
    tagged=TaggedCall(
        before_name="<f=", after_name=">\n", before_key="<p=", after_key=">\n", after_value="\n</p>\n", close="</f>"
    ),
)
PYTHON = OutputLayout(name="p", call_syntax=CallSyntax.PYTHON, section_start="<c>", section_end="</c>")


def read(layout, text):
    calls, rest = read_calls(text, layout, TOOLS)
    return [(call.name, json.loads(call.arguments)) for call in calls], rest


@pytest.mark.parametrize(
    ("layout", "text", "call"),
    [
        (JSON, '<c>{"name": "get", "arguments": {"n": 1}}</c>', ("get", {"n": 1})),
        (JSON, '<c>{"name": "get", "arguments": "{\\"n\\": 1}"}', ("get", {"n": 1})),
        (JSON, '<c>{"function": {"name": "get", "parameters": {}}}</c>', ("get", {})),
        (BARE, '{"name": "get"}', ("get", {})),
        (TAGGED, "<c><f=get>\n<p=n>\n1\n</p>\n<p=s>\n x \n</p>\n</f></c>", ("get", {"n": 1, "s": " x "})),
        (TAGGED, "<c><f=get><p=n>1</p></f></c>", ("get", {"n": 1})),
        (TAGGED, "<c>\n <f=get_all>\n</f>", ("get_all", {})),
        (PYTHON, "<c>[get(n=1, s='a\nb', t=true)]</c>", ("get", {"n": 1, "s": "a\nb", "t": True})),
    ],
)
def test_a_call_is_read_in_each_syntax_also_without_all_its_white_space_and_closing_markers(layout, text, call):
    assert read(layout, text) == ([call], "")


def test_several_calls_are_numbered_and_the_rest_is_given_back():
    text = '<c>{"name": "get"}</c>\n<c>{"name": "other"}</c> Done. '
    calls, rest = read_calls(text, JSON, TOOLS)
    assert [(call.name, call.index) for call in calls] == [("get", 0), ("other", 1)]
    assert rest == "Done."


def test_a_call_without_a_marker_must_name_a_known_tool():
    assert read(BARE, '{"name": "other"}') == ([], '{"name": "other"}')


@pytest.mark.parametrize(
    "text", ["<c>{", '<c>{"name": 1}</c>', '<c>{"name": "get", "arguments": [1]}</c>', "<c>[1]</c>"]
)
def test_a_text_that_is_no_call_is_given_back(text):
    assert read(JSON, text) == ([], text)


def test_the_name_may_be_the_only_member():
    layout = OutputLayout(name="n", call_syntax=CallSyntax.JSON, json=JsonCall(name="", arguments=""), call_start="<c>")
    assert read(layout, '<c>{"get": {"n": 1}}') == ([("get", {"n": 1})], "")
