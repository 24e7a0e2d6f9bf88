"""Reads answers of Muse where the template of the model file is in use: messages with a header that names a recipient.

     to=self<|message|>thoughts<|eom|><|start|>assistant to=user<|message|>answer<|eot|>

The first header continues the prompt, which ends with "<|start|>assistant". Glimmer writes the same format, so its
builtin parser reads both; here an unreadable call is content, and calls get ids and come with the end.
"""

from collections.abc import Sequence
from typing import Final

from puna.backend.thinking import ThinkingMarkers
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
    """Reads one answer."""

    layout: Final = LAYOUT

    def __init__(self, tools: Sequence[Tool], answer_prefix: str = "", think: Think | None = None) -> None:
        """answer_prefix: the beginning of the answer that the prompt already holds."""
        # Not strict: in Ollama's engine, which this path imitates, such a call is no error.
        self._parser = GlimmerParser(strict=False)
        self._parser.init(tools, None, think)
        self._prefix = answer_prefix
        self._calls: list[ToolCall] = []

    def thinking_markers(self) -> ThinkingMarkers | None:
        """Return what begins and ends a message to "self"."""
        return self._parser.thinking_markers()

    def feed(self, text: str) -> ParsedDelta:
        """Return what `text` completes."""
        text, self._prefix = self._prefix + text, ""
        return self._parsed(self._parser.feed(text))

    def finish(self) -> ParsedDelta:
        """Return what was held back, and all calls."""
        # An answer without any text may still have a beginning in the prompt.
        rest, last = self.feed(""), self._parsed(self._parser.finish())
        return ParsedDelta(rest.content + last.content, rest.thinking + last.thinking, tuple(self._calls))

    def _parsed(self, delta: ParsedDelta) -> ParsedDelta:
        # llama.cpp gives every call an id, whatever the format has.
        self._calls += [
            ToolCall(name=call.name, arguments=call.arguments, index=call.index, id=new_id()) for call in delta.calls
        ]
        return ParsedDelta(delta.content, delta.thinking)
