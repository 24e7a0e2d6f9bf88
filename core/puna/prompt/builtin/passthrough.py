"""No parsing at all: the answer is content."""

from collections.abc import Sequence

from puna.messages import Message, Think, Tool
from puna.prompt.parsed import ParsedDelta


class PassthroughParser:
    """Gives text back as content."""

    preserved_tokens: tuple[str, ...] = ()

    def init(self, tools: Sequence[Tool], last_message: Message | None, think: Think | None) -> Sequence[Tool]:  # noqa: ARG002
        """Change nothing."""
        return tools

    def feed(self, text: str) -> ParsedDelta:
        """Return `text` as content."""
        return ParsedDelta(text)

    def finish(self) -> ParsedDelta:
        """Return nothing: what is held back at the end is lost, as in Ollama."""
        return self.feed("")
