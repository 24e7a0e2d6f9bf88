"""Reads answers of models with a Go template: thinking between tags, then tool calls behind a tag."""

from puna.backend.thinking import ThinkingMarkers
from puna.prompt.go_template.thinking import ThinkingParser
from puna.prompt.go_template.tool_calls import ToolCallParser
from puna.prompt.parsed import OpenCalls, ParsedDelta


class GoTemplateParser:
    """Passes text through the parser of thinking, and its content through the parser of tool calls."""

    def __init__(self, thinking: ThinkingParser | None = None, tools: ToolCallParser | None = None) -> None:
        """Without either parser everything is content."""
        self._thinking = thinking
        self._tools = tools

    @property
    def passes_all(self) -> bool:
        """True if the parser passes every text on as content, unchanged."""
        return self._thinking is None and self._tools is None

    def thinking_markers(self) -> ThinkingMarkers | None:
        """Return the tags around the thinking; None without a parser for it."""
        return self._thinking.markers() if self._thinking is not None else None

    def feed(self, text: str) -> ParsedDelta:
        """Return what `text` completes."""
        outer = self._thinking.feed(text) if self._thinking is not None else ParsedDelta(text)
        # `waits` must reach the caller, which sends nothing for such a text.
        if outer.waits or self._tools is None:
            return outer
        inner = self._tools.feed(outer.content)
        return ParsedDelta(inner.content, outer.thinking, inner.calls)

    def finish(self) -> ParsedDelta:
        """Return text that looked like the beginning of a call and was none."""
        return self._tools.finish() if self._tools is not None else ParsedDelta()

    @property
    def open_calls(self) -> OpenCalls | None:
        """The calls for which the parser is waiting; None: for none."""
        return self._tools.open_calls if self._tools is not None else None
