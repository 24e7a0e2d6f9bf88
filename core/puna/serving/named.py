"""Renderers and parsers that a model's configuration names."""

from collections.abc import Sequence
from typing import Protocol

from puna.errors import UnknownRendererError
from puna.messages import Message, Think, Tool
from puna.models.stored import StoredModel
from puna.prompt.tool_calls import ParsedCall


class Renderer(Protocol):
    """Writes a prompt; it places the markers of media itself."""

    def render(self, messages: Sequence[Message], tools: Sequence[Tool], think: Think | None) -> str:
        """Return the prompt."""


class Parser(Protocol):
    """Reads one answer."""

    has_tools: bool
    has_thinking: bool
    preserved_tokens: Sequence[str]
    """Special tokens that it needs to see."""

    def init(self, tools: Sequence[Tool], last_message: Message | None, think: Think | None) -> Sequence[Tool]:
        """Begin an answer; return the tools as the renderer shall name them."""

    def add(self, text: str, done: bool) -> tuple[str, str, Sequence[ParsedCall]]:
        """Take text; return content, thinking and calls. `done`: no more comes."""


def renderer_of(model: StoredModel) -> Renderer | None:
    """Return the renderer that the model names; None: it names none. UnknownRendererError: nobody knows it."""
    if not model.config.renderer:
        return None
    raise UnknownRendererError(model.config.renderer)


def parser_of(model: StoredModel) -> Parser | None:
    """Return a fresh parser of the kind that the model names; None: it names none, or one that nobody knows."""
    return None
