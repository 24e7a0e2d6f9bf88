"""Feeds a builtin parser and joins what it returns."""

from collections.abc import Sequence

from puna.messages import Message, Think, Tool
from puna.prompt.builtin.registry import parser

TOOLS = (
    Tool(
        name="get",
        parameters='{"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}',
    ),
)
GET = ("get", '{"city":"Oslo","days":2}')


def read(
    name: str,
    *texts: str,
    think: bool | None = None,
    tools: Sequence[Tool] = TOOLS,
    last: Message | None = None,
) -> tuple[str, str, list[tuple[str, str]]]:
    """Return the thinking, the content and the calls of an answer that comes in these texts."""
    made = parser(name)
    assert made is not None
    made.init(tools, last, None if think is None else Think(think))
    deltas = [*map(made.feed, texts), made.finish()]
    calls = [(call.name, call.arguments) for delta in deltas for call in delta.calls]
    return "".join(delta.thinking for delta in deltas), "".join(delta.content for delta in deltas), calls


def held_back(name: str, text: str, *, think: bool | None = None) -> str:
    """Return the end of a text that the parser does not pass on before more text comes."""
    made = parser(name)
    assert made is not None
    made.init(TOOLS, None, None if think is None else Think(think))
    delta = made.feed(text)
    passed = delta.thinking + delta.content
    assert text.startswith(passed)
    return text[len(passed) :]
