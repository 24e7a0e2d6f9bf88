"""The template in the wheel writes a conversation as training wrote it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from train_demo.conversation import Conversation, Turn, go_json, prompt
from train_demo.skills import conversation
from train_demo.words import Random

from puna.go.template import facts
from puna.go.template.parser import parse
from puna.go.template.template import Template
from puna.messages import Message, Think, Tool, ToolCall
from puna.prompt.go_template.render import render_go

DEMO = Path(__file__).resolve().parents[3] / "core/puna/demo"


@pytest.fixture(scope="module")
def template() -> Template:
    return parse((DEMO / "template.tmpl").read_text())


def _rendered(template: Template, made: Conversation) -> str:
    messages = [
        Message(
            role=turn.role,
            content=turn.content,
            thinking=turn.thinking,
            tool_calls=tuple(ToolCall(name=name, arguments=go_json(arguments)) for name, arguments in turn.calls),
        )
        for turn in made.turns
    ]
    if made.system:
        messages.insert(0, Message(role="system", content=made.system))
    tools = [
        Tool(
            name=tool.name,
            description=tool.description,
            parameters=json.dumps(tool.schema()["function"]["parameters"]),
        )
        for tool in made.tools
    ]
    return render_go(template, messages, tools, Think(on=made.think))


def test_a_conversation_is_written_as_in_training(template: Template) -> None:
    for seed in range(300):
        made = conversation(Random(f"template {seed}"))
        asked = replace(made, turns=made.turns[:-1])
        assert _rendered(template, asked) == prompt(asked)


def test_a_last_turn_of_the_assistant_goes_on(template: Template) -> None:
    for think in (False, True):
        made = Conversation([Turn("user", "Count to 3."), Turn("assistant", "1, 2")], think=think)
        assert _rendered(template, made) == prompt(made)


def test_what_the_server_reads_from_the_template(template: Template) -> None:
    found = facts.of(template)
    assert (found.thinking_tags, found.tool_tag) == (("<think>", "</think>"), "<tool_call>")
    assert found.full_tool_round_trip
