"""No parsing at all: the answer is content."""

from collections.abc import Sequence

from puna.messages import Message, Think, Tool
from puna.prompt.builtin.interface import Piece


class PassthroughParser:
    """Gives text back as content."""

    has_tools = False
    has_thinking = False
    preserved_tokens: tuple[str, ...] = ()

    def init(self, tools: Sequence[Tool], last_message: Message | None, think: Think | None) -> Sequence[Tool]:  # noqa: ARG002
        """Change nothing."""
        return tools

    def add(self, text: str, done: bool) -> Piece:  # noqa: ARG002
        """Return `text` as content."""
        return Piece(text)
