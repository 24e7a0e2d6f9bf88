"""Well-known chat templates: what is recognized, and the prompts, recorded from Ollama, that come of it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from puna.go.template.parser import parse
from puna.messages import Message, Tool, ToolCall
from puna.models.create import fingerprints
from puna.models.create.known_templates import KNOWN, nearest
from puna.prompt.go_template.render import render_go

RECORDED = json.loads((Path(__file__).parent / "known_prompts.json").read_text())


def _message(given: Mapping[str, Any]) -> Message:
    calls = [call["function"] for call in given.get("tool_calls", ())]
    return Message(
        role=given["role"],
        content=given["content"],
        tool_calls=tuple(ToolCall(name=call["name"], arguments=json.dumps(call["arguments"])) for call in calls),
    )


def _tool(given: Mapping[str, Any]) -> Tool:
    function = given["function"]
    return Tool(
        name=function["name"],
        description=function["description"],
        parameters=json.dumps(function["parameters"]),
    )


@pytest.mark.parametrize(
    ("known", "conversation"), [(known, each) for known in KNOWN for each in RECORDED["prompts"][known.name]]
)
def test_a_known_template_writes_the_prompts_that_the_references_does(known, conversation):
    told = RECORDED["conversations"][conversation]
    messages, tools = map(_message, told["messages"]), map(_tool, told.get("tools", ()))
    prompt = render_go(parse(known.template), list(messages), list(tools), None)
    assert prompt == RECORDED["prompts"][known.name][conversation]


def test_each_of_them_was_recorded():
    assert [known.name for known in KNOWN] == sorted(RECORDED["prompts"])


def test_every_fingerprint_has_a_go_template():
    assert {each.name for each in fingerprints.load()} == {known.name for known in KNOWN}


# Written for this test after the format of ChatML, whose published spellings differ from it in some places.
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.mark.parametrize(
    "text", [CHATML, CHATML.replace("{%", "{%-"), "{# a comment of forty characters, or so #}" + CHATML]
)
def test_a_spelling_that_differs_a_little_is_recognised(text):
    known = nearest(text)
    assert known is not None
    assert known.name == "chatml"


def test_a_spelling_that_differs_by_a_hundred_characters_is_unknown():
    assert nearest("~" * 300 + CHATML) is None


def test_a_text_unlike_every_template_is_unknown():
    assert nearest("{{ messages }}" * 30) is None
