"""The deltas of tool calls beside the complete calls, over every recorded answer and over calls of each notation."""

import functools
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import pytest
from tests.core.prompt.builtin.test_parsers import CASES
from tests.core.prompt.builtin.test_parsers import TOOLS as BUILTIN_TOOLS
from tests.core.prompt.go_template.test_tool_calls import STREAMS
from tests.core.prompt.go_template.test_tool_calls import TOOLS as GO_TOOLS
from tests.core.prompt.jinja.samples import ANSWERS, BOS, EOS, TEMPLATES
from tests.core.prompt.jinja.samples import TOOLS as JINJA_TOOLS

from puna.backend import TextDelta
from puna.errors import BackendFailedError
from puna.messages import Message, Think, Tool, ToolCall
from puna.prompt.builtin.registry import parser as builtin_parser
from puna.prompt.call_deltas import notations
from puna.prompt.call_deltas.reader import Notation
from puna.prompt.go_template.answer import GoTemplateParser
from puna.prompt.go_template.thinking import ThinkingParser
from puna.prompt.go_template.tool_calls import ToolCallParser
from puna.prompt.jinja import channels, parsers
from puna.prompt.jinja.channels import ChannelParser
from puna.prompt.jinja.template import ChatTemplate
from puna.prompt.layout import OutputLayout
from puna.prompt.parsed import AnswerParser
from puna.serving.answer_parsers import AnswerReader
from puna.serving.answers import Delta
from puna.serving.call_deltas import CallDeltas

Made = tuple[AnswerParser, Notation | None, Sequence[Tool]]


def builtin(name: str, think: bool | None = None, tools: Sequence[Tool] = BUILTIN_TOOLS) -> Made:
    parser = builtin_parser(name)
    assert parser is not None
    shown = parser.init(tools, Message(role="user", content="x"), None if think is None else Think(think))
    return parser, notations.of_parser(name, shown), shown


@functools.cache
def layout_of(name: str) -> OutputLayout:
    return ChatTemplate(TEMPLATES[name], BOS, EOS).layout(tools=True)


def jinja(name: str, tools: Sequence[Tool] = JINJA_TOOLS) -> Made:
    layout = layout_of(name)
    return parsers.parser(layout, tools, "", None), notations.of_layout(layout, tools), tools


def go(tag: str, *, think: bool = False, tools: Sequence[Tool] = GO_TOOLS) -> Made:
    thinking = ThinkingParser("<think>", "</think>") if think else None
    return GoTemplateParser(thinking, ToolCallParser(tools, tag)), notations.of_go_template(tools), tools


def gpt_oss() -> Made:
    return ChannelParser(BUILTIN_TOOLS), notations.of_layout(channels.LAYOUT, BUILTIN_TOOLS), BUILTIN_TOOLS


def read(made: Made, texts: Iterable[str], *, deltas: bool = True) -> list[Delta]:
    parser, notation, tools = made
    reader = AnswerReader(parser, call_deltas=CallDeltas(notation, tools) if deltas else None)
    out = [delta for text in texts for delta in reader.feed(TextDelta(text))]
    return [*out, reader.finish()]


def joined(deltas: Iterable[Delta]) -> dict[int, list[tuple[str, str, str]]]:
    """Return the deltas of each call by its index; check that only the first of a call has its name and id."""
    out = defaultdict(list)
    for each in (part for delta in deltas for part in delta.tool_call_deltas):
        # FunctionGemma may leave out a name.
        assert bool(each.id) == (each.index not in out)
        assert not each.name or each.id
        out[each.index].append((each.id, each.name, each.arguments))
    return out


def calls(deltas: Iterable[Delta]) -> list[ToolCall]:
    return [call for delta in deltas for call in delta.tool_calls]


def check(make: Callable[[], Made], texts: Sequence[str]) -> int:
    """Read an answer with deltas of calls and without, and compare; return the number of calls."""
    try:
        plain = read(make(), texts, deltas=False)
    except BackendFailedError:
        with pytest.raises(BackendFailedError):
            read(make(), texts)
        return 0
    found = read(make(), texts)
    assert "".join(each.text for each in found) == "".join(each.text for each in plain)
    assert "".join(each.thinking for each in found) == "".join(each.thinking for each in plain)
    assert [(each.name, each.arguments) for each in calls(found)] == [
        (each.name, each.arguments) for each in calls(plain)
    ]
    sent = joined(found)
    for call in calls(found):
        parts = sent[call.index]
        assert parts[0][:2] == (call.id, call.name)
        assert json.loads("".join(part for _, _, part in parts)) == json.loads(call.arguments)
    return len(calls(found))


RECORDED: list[tuple[str, Callable[[], Made], list[str]]] = [
    *(
        (case["parser"], lambda case=case: builtin(case["parser"], case["think"]), case["pieces"])
        for case in CASES
        if case["tools"]
    ),
    *(
        (each["name"], lambda each=each: jinja(each["name"]), answer["pieces"])
        for each in ANSWERS
        for answer in each["answers"]
        if answer["tools"]
    ),
    *((case["tag"], lambda case=case: go(case["tag"], think=case["think"]), case["pieces"]) for case in STREAMS),
]


@pytest.mark.parametrize(("name", "make", "texts"), RECORDED, ids=[f"{n}-{each[0]}" for n, each in enumerate(RECORDED)])
def test_deltas_change_nothing_and_have_the_value_of_the_call(
    name: str, make: Callable[[], Made], texts: list[str]
) -> None:
    if check(make, texts):
        # Every cut is possible: a token may be a single character.
        check(make, list("".join(texts)))


WEATHER = '{"city": "S\\u00e3o \\"Paulo\\" <b> & \\ud83d\\ude00", "days": 2, "l": [1.0, {"b": null}]}'
VALUE = {"city": 'São "Paulo" <b> & 😀', "days": 2, "l": [1, {"b": None}]}
XML = (
    '<tool_call>\n<function=get_weather>\n<parameter=city>\nSão "Paulo" <b> & 😀\n</parameter>\n'
    "<parameter=days>\n2\n</parameter>\n"
    '<parameter=l>\n[1.0, {"b": null}]\n</parameter>\n</function>\n</tool_call>\n'
)
PAIRS = (
    '<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>São "Paulo" <b> & 😀</arg_value>\n'
    "<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n"
    '<arg_key>l</arg_key>\n<arg_value>[1.0, {"b": null}]</arg_value>\n</tool_call>\n'
)
JSON = f'<tool_call>\n{{"name": "get_weather", "arguments": {WEATHER}}}\n</tool_call>\n'
COHERE = f'{{"tool_call_id": "0", "tool_name": "get_weather", "parameters": {WEATHER}}}'
GLIMMER = (
    ' to=get_weather<|message|><atem:function_calls>\n<atem:invoke name="get_weather">\n'
    '<atem:parameter name="city">São "Paulo" <b> & 😀</atem:parameter>\n'
    '<atem:parameter name="days">2</atem:parameter>\n'
    '<atem:parameter name="l">[1.0, {"b": null}]</atem:parameter>\n'
    "</atem:invoke>\n</atem:function_calls><|eom|><|start|>assistant"
)
MARKS = {each: f"<\uff5c{each}\uff5c>" for each in (
    "tool▁calls▁begin", "tool▁call▁begin", "tool▁sep", "tool▁call▁end", "tool▁calls▁end"
)}  # fmt: skip
DEEPSEEK = (
    f"{MARKS['tool▁calls▁begin']}"
    + f"{MARKS['tool▁call▁begin']}get_weather{MARKS['tool▁sep']}{WEATHER}{MARKS['tool▁call▁end']}" * 2
    + MARKS["tool▁calls▁end"]
)
COGITO = (
    f"{MARKS['tool▁calls▁begin']}"
    + (
        f"{MARKS['tool▁call▁begin']}function{MARKS['tool▁sep']}get_weather\n"
        f"```json\n{WEATHER}\n```{MARKS['tool▁call▁end']}"
    )
    * 2
    + MARKS["tool▁calls▁end"]
)
HARMONY = f"<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{WEATHER}"
FEW, MANY = 3, 30
WRITTEN: list[tuple[str, Callable[[], Made], str, int, int]] = [
    # name, parser, text, number of calls, least number of deltas of each call if it is written letter by letter
    *(
        (name, lambda name=name: builtin(name, think=False), JSON * 2, 2, MANY)
        for name in ("qwen3", "qwen3-vl-instruct")
    ),
    *((name, lambda name=name: builtin(name, think=False), XML * 2, 2, 10) for name in ("qwen3-coder", "qwen3.5")),
    ("nemotron", lambda: builtin("nemotron-3-nano", think=False), XML * 2, 2, 10),
    *((name, lambda name=name: builtin(name, think=False), PAIRS * 2, 2, FEW) for name in ("glm-4.7", "laguna")),
    ("cohere", lambda: builtin("cohere", False), f"<|START_ACTION|>[{COHERE}, {COHERE}]<|END_ACTION|>", 2, MANY),
    ("ministral", lambda: builtin("ministral"), f"[TOOL_CALLS]get_weather[ARGS]{WEATHER}" * 2, 2, MANY),
    ("deepseek3", lambda: builtin("deepseek3", False), DEEPSEEK, 2, MANY),
    ("cogito", lambda: builtin("cogito", False), COGITO, 2, MANY),
    ("harmony", lambda: builtin("harmony"), HARMONY, 1, MANY),
    ("gpt-oss", gpt_oss, f"{HARMONY}<|call|><|start|>assistant{HARMONY}<|call|>", 2, MANY),
    ("hermes", lambda: jinja("hermes", BUILTIN_TOOLS), JSON * 2, 2, MANY),
    ("glimmer", lambda: builtin("glimmer"), GLIMMER * 2, 2, 10),
    ("go", lambda: go("<tool_call>"), f"I look.{JSON * 2}", 2, MANY),
    ("go, parameters", lambda: go("{"), f'{{"name": "get_weather", "parameters": {WEATHER}}}', 1, MANY),
    ("go, array", lambda: go("[TOOL_CALLS]"), f"[TOOL_CALLS][{JSON[12:-14]}, {JSON[12:-14]}]", 2, MANY),
]


@pytest.mark.parametrize(("name", "make", "text", "count", "least"), WRITTEN, ids=[each[0] for each in WRITTEN])
def test_arguments_come_while_they_are_written(
    name: str, make: Callable[[], Made], text: str, count: int, least: int
) -> None:
    # Special tokens come whole.
    texts = re.findall(r"<\uff5c[^>]*>|.", text, re.DOTALL)
    check(make, texts)
    found = read(make(), texts)
    sent = joined(found)
    assert len(sent) == len(calls(found)) == count
    for call in calls(found):
        assert json.loads(call.arguments) == VALUE
        assert len(sent[call.index]) >= least
    # A call that comes in one text is one delta.
    assert [len(parts) for parts in joined(read(make(), [text])).values()] == [1] * count
