"""Published chat templates: what a template writes as an answer is read back as that answer.

The template itself is the judge. It prints a finished answer in the form that its model was trained to write; the
parser made for the template must find the answer's content and its calls in that text again.
"""

import json
import re

import pytest

from puna.errors import TemplateRefusedError
from puna.messages import Message, Tool, ToolCall
from puna.prompt.jinja.template import ChatTemplate

USER = Message(role="user", content="What is the weather in Oslo?")
TOOL = Tool(
    name="get_weather",
    description="Looks the weather up.",
    parameters='{"type":"object","properties":{"city":{"type":"string","description":"Where"},'
    '"days":{"type":"integer","description":"How long"}},"required":["city"]}',
)
CALL = ToolCall(name="get_weather", arguments='{"city":"Oslo","days":2}', index=0, id="call00001")
TEXT = "It rains in Oslo, as it often does."


@pytest.fixture(scope="module")
def templates(llama_cpp_sources):
    return {path.stem: path.read_text(encoding="utf-8") for path in (llama_cpp_sources / "templates").glob("*.jinja")}


def written(template, tools, answer):
    """Return what the template writes as an answer, without the opening of the turn."""
    closed = template.render([USER], tools, add_generation_prompt=False)
    opening = template.render([USER], tools)[len(closed) :]
    text = template.render([USER, answer, USER], tools)[len(closed) :]
    same = next((n for n, (a, b) in enumerate(zip(opening, text, strict=False)) if a != b), len(opening))
    answer = text[re.search(r"(?:.*[>\n\]:])?", text[:same], re.DOTALL).end() :]
    layout = template.layout(tools=bool(tools))
    opens = layout.thinking_start.strip()
    return f"Hm.{layout.thinking_end}{answer}" if opens and opening.rstrip().endswith(opens) else answer


def read(template, tools, text, size=3):
    parser = template.parser([USER], tools)
    pieces = [parser.feed(text[at : at + size]) for at in range(0, len(text), size)]
    pieces.append(parser.finish())
    return "".join(piece.content for piece in pieces), "".join(piece.thinking for piece in pieces), pieces[-1].calls


def test_every_template_renders_a_conversation(templates):
    refused = {}
    for name, source in templates.items():
        try:
            text = ChatTemplate(source, "<s>", "</s>").render([USER])
        except TemplateRefusedError as error:
            refused[name] = str(error)
            continue
        assert USER.content in text, name
    assert len(templates) >= 60
    assert refused == {}


def test_text_is_read_back(templates):
    """An answer that is text alone stands in what is read, whatever closes the turn behind it."""
    lost = []
    for name, source in templates.items():
        template = ChatTemplate(source, "<s>", "</s>")
        content, thinking, calls = read(template, (), TEXT)
        if TEXT not in content + thinking or calls:
            lost.append(name)
    assert lost == []


def test_calls_are_read_back(templates):
    """Templates that write calls: what they write for a call is read as that call."""
    wrong, tried = {}, []
    for name, source in sorted(templates.items()):
        template = ChatTemplate(source, "<s>", "</s>")
        try:
            text = written(template, [TOOL], Message(role="assistant", content="", tool_calls=(CALL,)))
        except TemplateRefusedError:
            continue
        if "Oslo" not in text.partition(USER.content)[0]:
            continue
        tried.append(name)
        answer = text.partition(USER.content)[0]
        _, _, calls = read(template, [TOOL], answer)
        found = [(call.name, json.loads(call.arguments)) for call in calls]
        if found != [("get_weather", {"city": "Oslo", "days": 2})]:
            wrong[name] = (answer[:300], found)
    assert len(tried) >= 40
    assert wrong == {}
