"""The form of Muse: every message has a header that names its recipient, then a body.

     to=self<|message|>thoughts<|eom|><|start|>assistant to=user<|message|>answer<|eot|>

A message for a tool holds a call in markup of its own. The first header continues the prompt's "<|start|>assistant".
Models that name a builtin parser write the same form; its parser reads both.
"""

from collections.abc import Sequence
from typing import Final

from puna.messages import Think, Tool, ToolCall
from puna.prompt.builtin.glimmer_answer import (
    CALLS,
    END_OF_CALLS,
    END_OF_MESSAGE,
    END_OF_TURN,
    MESSAGE,
    START,
    GlimmerParser,
)
from puna.prompt.jinja.calls import new_id
from puna.prompt.layout import OutputLayout
from puna.prompt.parsed import ParsedDelta

LAYOUT: Final = OutputLayout(
    name="muse",
    thinks=True,
    thinking_start=f" to=self{MESSAGE}",
    thinking_end=END_OF_MESSAGE,
    before_prefill=f" to=user{MESSAGE}",
    preserved_tokens=(START, MESSAGE, END_OF_MESSAGE, END_OF_TURN, CALLS, END_OF_CALLS),
)


class RecipientParser:
    """Takes the pieces of one answer, in order."""

    layout: Final = LAYOUT

    def __init__(self, tools: Sequence[Tool], answer_prefix: str = "", think: Think | None = None) -> None:
        """`answer_prefix` is the beginning of the answer that already stands in the prompt."""
        self._parser = GlimmerParser(strict=False)
        self._parser.init(tools, None, think)
        self._prefix = answer_prefix
        self._calls: list[ToolCall] = []

    def feed(self, text: str) -> ParsedDelta:
        """Take a piece and return what is sure by now."""
        text, self._prefix = self._prefix + text, ""
        return self._parsed(self._parser.feed(text))

    def finish(self) -> ParsedDelta:
        """Return what was held back, and the calls."""
        rest, last = self.feed(""), self._parsed(self._parser.finish())
        return ParsedDelta(rest.content + last.content, rest.thinking + last.thinking, tuple(self._calls))

    def _parsed(self, piece: ParsedDelta) -> ParsedDelta:
        self._calls += [
            ToolCall(name=call.name, arguments=call.arguments, index=call.index, id=new_id()) for call in piece.calls
        ]
        return ParsedDelta(piece.content, piece.thinking)
