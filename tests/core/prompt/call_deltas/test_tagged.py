import json
from dataclasses import replace

import pytest

from puna.messages import Tool
from puna.prompt.call_deltas.reader import CallsReader, Notation
from puna.prompt.jinja.arguments import Schemas
from puna.prompt.layout import CallSyntax, OutputLayout, TaggedCall
from puna.prompt.parsed import OpenCalls

PROPERTIES = {"text": {"type": "string"}, "days": {"type": "integer"}, "any": {}}
TOOLS = [Tool(name=name, parameters=json.dumps({"properties": PROPERTIES})) for name in ("get", "get_all")]
LAYOUT = OutputLayout(
    name="x",
    call_syntax=CallSyntax.TAGGED,
    call_start="<tool_call>\n",
    call_end="</tool_call>",
    tagged=TaggedCall(
        before_name="<function=",
        after_name=">\n",
        before_key="<parameter=",
        after_key=">\n",
        after_value="\n</parameter>\n",
        close="</function>\n",
    ),
)


def reading(layout: OutputLayout = LAYOUT) -> CallsReader:
    made = Notation(layout=layout, types=Schemas(TOOLS)).reader(OpenCalls("", several=True), TOOLS)
    assert made is not None
    return made


def parts(reader: CallsReader, *texts: str) -> list[str]:
    return [part for text in texts for _, part in reader.feed(text)]


def test_a_text_grows_and_holds_back_the_marker_behind_it() -> None:
    reader = reading()
    assert parts(reader, "<tool_call>\n<function=get>\n", "<parameter=text>\n") == [""]
    assert parts(reader, "one <b", ">\n") == ['{"text":"one \\u003cb', "\\u003e"]
    assert parts(reader, "two\n</para", "graph>\n\n</parameter>") == ["\\ntwo", '\\n\\u003c/paragraph\\u003e\\n"']
    assert parts(reader, "\n</function>\n</tool_call>") == ["}"]


def test_other_values_come_when_they_are_complete() -> None:
    reader = reading()
    assert parts(reader, "<function=get>\n<parameter=days>\n1") == [""]
    assert parts(reader, "2\n</parameter>\n") == ['{"days":12']


def test_a_name_waits_until_it_cannot_become_a_longer_one() -> None:
    reader = reading()
    assert reader.feed("<function=get") == []
    assert [call.name for call, _ in reader.feed("_all>\n<parameter=days>\n")] == ["get_all"]


def test_a_call_without_arguments() -> None:
    assert parts(reading(), "<function=get>\n</function>") == ["{}"]


def test_a_section_of_cdata_waits_for_its_end() -> None:
    reader = reading(replace(LAYOUT, tagged=replace(LAYOUT.tagged, cdata=True)))
    assert parts(reader, "<function=get>\n<parameter=text>\n<![CDATA[a\n</parameter> b]]>\n</para") == [""]
    assert parts(reader, "meter>\n") == ['{"text":"a\\n</parameter> b"'.replace("<", "\\u003c").replace(">", "\\u003e")]


@pytest.mark.parametrize("after", ["nonsense", "<other>"])
def test_an_unknown_text_behind_an_argument_is_left_to_the_parser(after: str) -> None:
    reader = reading()
    assert parts(reader, "<function=get>\n<parameter=days>\n1\n</parameter>\n") == ['{"days":1']
    assert parts(reader, f"{after}</function>") == []
    assert parts(reader, "</tool_call><tool_call><function=get></function>") == []


def test_arguments_in_json_behind_a_name_between_markers() -> None:
    tagged = TaggedCall(before_name="<f=", after_name=">", before_id="#", after_id=";", close="</f>")
    layout = OutputLayout(name="x", call_syntax=CallSyntax.TAGGED_JSON, tagged=tagged)
    reader = reading(layout)
    found = [
        (call.name, call.id, part)
        for text in ("<f=get>#7", ';{"a"', ": 1}</f><f=get>{}")
        for call, part in reader.feed(text)
    ]
    assert found == [("get", "7", '{"a"'), ("get", "7", ":1}"), ("get", "", "{}")]
