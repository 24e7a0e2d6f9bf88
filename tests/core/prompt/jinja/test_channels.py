import json

import pytest

from puna.messages import Tool
from puna.prompt.jinja.channels import ChannelParser


def read(text, tools=(), answer_prefix="", size=None):
    parser = ChannelParser([Tool(name=name) for name in tools], answer_prefix)
    size = size or max(len(text), 1)
    deltas = [parser.feed(text[at : at + size]) for at in range(0, len(text), size)]
    deltas.append(parser.finish())
    calls = [(call.name, json.loads(call.arguments)) for call in deltas[-1].calls]
    return "".join(d.thinking for d in deltas), "".join(d.content for d in deltas), calls


ANSWER = "<|channel|>analysis<|message|>Hm <b<|end|><|start|>assistant<|channel|>final<|message|>Yes<|return|>"


@pytest.mark.parametrize("size", [None, 1, 3])
def test_the_channel_of_a_body_tells_thinking_from_content(size):
    assert read(ANSWER, size=size) == ("Hm <b", "Yes", [])


def test_a_body_for_an_offered_tool_is_a_call():
    text = '<|channel|>commentary to=functions.get <|constrain|>json<|message|>{"n": 1}<|call|>'
    assert read(text, ["get"]) == ("", "", [("get", {"n": 1})])
    assert read(text) == ("", '{"n": 1}', [])


def test_a_body_for_a_tool_that_is_no_object_is_content():
    assert read("<|channel|>commentary to=get<|message|>[1]<|call|>", ["get"]) == ("", "[1]", [])


def test_text_without_a_header_is_content():
    assert read("Just text") == ("", "Just text", [])


def test_an_answer_that_the_prompt_began_goes_on_in_its_channel():
    assert read("on.", answer_prefix="<|channel|>analysis<|message|>Go ") == ("Go on.", "", [])
