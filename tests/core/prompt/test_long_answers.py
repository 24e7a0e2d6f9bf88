"""A parser reads each character of an answer a bounded number of times: a call may have as many as a file."""

import sys
import types
from collections.abc import Callable, Iterator, Sequence

import pytest
from tests.core.prompt.builtin.test_parsers import CASES, TOOLS

from puna.messages import Message
from puna.prompt.builtin.registry import parser
from puna.prompt.go_template.tool_calls import ToolCallParser
from puna.prompt.parsed import ParsedDelta

FILLER = "lore"
SHORT = 150
"""Pieces of the shorter answer; the longer one has twice as many."""
MOST_RATIO = 2.7
"""Most lines of Python of the longer answer for each of the shorter one. A text read anew each time takes 4."""
CUTS = 8

Feed = Callable[[str], ParsedDelta]
Trace = Callable[[types.FrameType, str, object], object]


def lines_of_python(feed: Feed, pieces: Sequence[str]) -> int:
    """Return how many lines of Python the pieces take: a measure of time that is the same on each machine."""
    count = 0

    def trace(_frame: types.FrameType, event: str, _argument: object) -> "Trace":
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for piece in pieces:
            feed(piece)
    finally:
        sys.settrace(before)
    return count


def builtin(name: str) -> Feed:
    made = parser(name)
    assert made is not None
    made.init(TOOLS, Message(role="user", content="x"), None)
    return made.feed


def go_template(tag: str) -> Feed:
    return ToolCallParser(TOOLS, tag).feed


def beginnings() -> Iterator[tuple[Callable[[str], Feed], str, str]]:
    """Yield parsers and beginnings of answers at which a long text follows."""
    called = [case for case in CASES if any(calls and not isinstance(calls, str) for *_, calls in case["chunks"])]
    answers = {case["parser"]: "".join(case["pieces"]) for case in called if case["chunks"][-1][0] != "ERR"}
    for name, answer in answers.items():
        yield builtin, name, answer
    yield builtin, "ministral", '[TOOL_CALLS]get[ARGS]{"city": "'
    for tag in ("<tool_call>", "[", "{"):
        yield go_template, tag, tag + '{"name": "get", "arguments": {"x": "'
        yield go_template, tag, tag + '{"arguments": {"x": "'


@pytest.mark.parametrize(("make", "name", "answer"), list(beginnings()))
def test_an_answer_that_is_twice_as_long_takes_twice_the_work(
    make: Callable[[str], Feed], name: str, answer: str
) -> None:
    for cut in {len(answer) * part // CUTS for part in range(1, CUTS + 1)}:
        counts = [lines_of_python(make(name), [answer[:cut], *[FILLER] * pieces]) for pieces in (SHORT, 2 * SHORT)]
        assert counts[1] < MOST_RATIO * counts[0], f"{answer[:cut]!r}: {counts}"
