"""The markers of every format close a thought so that the format's own parser reads thinking and answer apart."""

import re

import pytest

from puna.backend.thinking import ThinkingBudget, ThinkingTracker
from puna.capabilities import PARSERS, THINKING
from puna.messages import Message, Think, Tool
from puna.prompt.builtin import registry
from puna.prompt.go_template.answer import GoTemplateParser
from puna.prompt.go_template.thinking import ThinkingParser
from puna.prompt.jinja import channels, known_layouts, parsers, recipients
from puna.prompt.layout import OutputLayout
from puna.prompt.parsed import MarksThinking

TOOL = Tool(name="get_weather", parameters='{"type":"object","properties":{}}')
WORDS = ["one", " two", " three", " four", " five", " six"]
LAYOUTS = {
    each.name: each
    for each in (*vars(known_layouts).values(), channels.LAYOUT, recipients.LAYOUT)
    if isinstance(each, OutputLayout) and each.thinks
} | {
    "derived": OutputLayout(name="derived", thinks=True, thinking_start="<think>\n", thinking_end="\n</think>\n\n"),
    "open": OutputLayout(name="open", thinks=True, thinking_end="[END]"),
}
ANSWERS = {"harmony": "<|channel|>final<|message|>", "gpt-oss": "<|channel|>final<|message|>"}
"""What begins an answer if the closing text only ends the thinking, since the model may call a tool instead."""
ANSWERS |= dict.fromkeys(("glimmer", "muse"), " to=user<|message|>")


def builtin(name, tools=()):
    parser = registry.parser(name)
    parser.init(tools, Message(role="user", content="x"), Think(on=True))
    return parser


def go(started):
    return GoTemplateParser(ThinkingParser("<think>", "</think>", started=started))


CASES = [
    *((name, lambda tools, name=name: builtin(name, tools)) for name, can in PARSERS.items() if THINKING in can),
    *((name, lambda tools, layout=layout: parsers.parser(layout, tools, "", None)) for name, layout in LAYOUTS.items()),
    ("go", lambda tools: go(False)),
    ("go-started", lambda tools: go(True)),
]


def answered(name, make, most, tools):
    """Write an answer as a model with a budget does: think, be closed, answer. Return what the parser reads."""
    parser = make(tools)
    assert isinstance(parser, MarksThinking)
    markers = parser.thinking_markers()
    tracker = ThinkingTracker(ThinkingBudget(max_tokens=most, markers=markers))
    start = [] if markers.open else [" " + markers.starts[0] if name in ("glimmer", "muse") else markers.starts[0]]
    # A marker of special tokens comes as several tokens.
    texts = [part for text in start for part in re.findall(r"<\|[^|]*\|>|[^<]+|<[^>]*>", text)] + WORDS
    closing = ""
    read = []
    for text in texts:
        if tracker.due:
            closing = tracker.close()
            break
        tracker.feed(text.encode())
        read.append(text)
    answer = "" if "final" in closing or "to=user" in closing else ANSWERS.get(name, "")
    found = [parser.feed(text) for text in (*read, closing, answer, "The", " answer.")] + [parser.finish()]
    return tracker.spent, "".join(each.thinking for each in found), "".join(each.content for each in found)


@pytest.mark.parametrize("tools", [(), (TOOL,)], ids=["plain", "tools"])
@pytest.mark.parametrize("most", [0, 1, 4])
@pytest.mark.parametrize(("name", "make"), CASES, ids=[name for name, _ in CASES])
def test_the_thinking_is_closed_and_the_answer_is_content(name, make, most, tools):
    if name == "cogito" and tools:
        assert make(tools).thinking_markers() is None  # such a model does not think with tools
        return
    spent, thinking, content = answered(name, make, most, tools)
    assert spent == most
    # White space around thinking belongs to the format.
    assert thinking.strip() == "".join(WORDS[:most])
    assert content.strip() == "The answer."


@pytest.mark.parametrize("name", [name for name, can in PARSERS.items() if THINKING not in can])
def test_formats_without_thinking_have_no_markers_that_open(name):
    parser = builtin(name)
    markers = parser.thinking_markers() if isinstance(parser, MarksThinking) else None
    assert markers is None or not markers.open


@pytest.mark.parametrize(
    ("prefix", "opened"),
    [("", None), ("<think>", True), ("<think>\n", True), ("<think>\n</think>\n", False), ("Sure", False)],
)
def test_the_beginning_of_an_answer_decides_whether_it_begins_within_thinking(prefix, opened):
    markers = parsers.parser(LAYOUTS["derived"], (), prefix, None).thinking_markers()
    if opened is False:
        assert markers is None
    else:
        assert markers.open is bool(opened)
        assert markers.starts == (() if opened else ("<think>",))


@pytest.mark.parametrize("layout", [channels.LAYOUT, known_layouts.GEMMA])
def test_a_thought_that_the_answer_s_beginning_has_closed_may_be_followed_by_another(layout):
    markers = parsers.parser(layout, (), layout.before_prefill, None).thinking_markers()
    assert (markers.open, markers.again) == (False, True)


def test_turned_off_thinking_has_no_markers():
    for name in ("qwen3-thinking", "deepseek3", "lfm2-thinking", "cohere"):
        parser = registry.parser(name)
        parser.init((), Message(role="user", content="x"), Think(on=False))
        assert parser.thinking_markers() is None
