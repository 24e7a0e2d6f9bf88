"""What a family of models brings: a renderer for its prompts, a parser for its answers, or both."""

from collections.abc import Sequence
from typing import Protocol

from puna.messages import Message, Think, Tool
from puna.prompt.parsed import AnswerParser


class Renderer(Protocol):
    """Makes a prompt of a conversation."""

    bos: str
    """The text that begins prompts for this family; removed where the tokenizer adds it itself. Empty: none."""

    def render(self, messages: Sequence[Message], tools: Sequence[Tool], think: Think | None) -> str:
        """Return the prompt, `[img-N]` in it for the media of the messages, in order."""
        ...


class Parser(AnswerParser, Protocol):
    """Reads one answer of a family. `init` comes first."""

    preserved_tokens: tuple[str, ...]
    """Special tokens whose text the parser must see."""

    def init(self, tools: Sequence[Tool], last_message: Message | None, think: Think | None) -> Sequence[Tool]:
        """Prepare for an answer to a conversation that ends with `last_message`; return the tools as the prompt names
        them."""
        ...


def goes_on(last_message: Message | None) -> bool:
    """Say whether the model goes on with an answer that a conversation ends with, instead of beginning one."""
    return last_message is not None and last_message.role == "assistant" and bool(last_message.content)
