"""Reads an answer as content, for models that name a parser to say that nothing is to be parsed."""

from collections.abc import Sequence

from puna.messages import Message, Think, Tool
from puna.prompt.parsed import ParsedDelta


class PassthroughParser:
    """Returns text as content."""

    preserved_tokens: tuple[str, ...] = ()

    def init(self, tools: Sequence[Tool], last_message: Message | None, think: Think | None) -> Sequence[Tool]:  # noqa: ARG002
        """Change nothing."""
        return tools

    def feed(self, text: str) -> ParsedDelta:
        """Return `text` as content."""
        return ParsedDelta(text)

    def finish(self) -> ParsedDelta:
        """Return nothing: no text is held back."""
        return ParsedDelta()
