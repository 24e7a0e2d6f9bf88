"""The interfaces of a model family: a renderer for its prompts and a parser for its answers. A model may name both."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from puna.messages import Message, Think, Tool
from puna.prompt.parsed import AnswerParser, ParsedDelta


class Renderer(Protocol):
    """Writes the prompt of a conversation."""

    bos: str
    """The text that begins prompts of this family. It is removed where the tokenizer adds it itself. Empty: none."""

    def render(self, messages: Sequence[Message], tools: Sequence[Tool], think: Think | None) -> str:
        """Return the prompt. `[img-N]` in it stands for the media of the messages, in order. `think` None: unset."""
        ...


class Parser(AnswerParser, Protocol):
    """Reads one answer of a family. `init` comes first."""

    preserved_tokens: tuple[str, ...]
    """Special tokens whose text the parser must see."""

    def init(self, tools: Sequence[Tool], last_message: Message | None, think: Think | None) -> Sequence[Tool]:
        """Prepare for an answer to a conversation that ends with `last_message`; return the tools as the prompt names
        them."""
        ...


class SteppedParser(ABC):
    """The base of parsers whose states read texts and the end of the answer in one way."""

    @abstractmethod
    def _advance(self, text: str, *, done: bool) -> ParsedDelta:
        """Return what `text` completes behind what is held back. `done`: the answer ends with it."""

    def feed(self, text: str) -> ParsedDelta:
        """Return what `text` completes. Raises what `_advance` raises."""
        return self._advance(text, done=False)

    def finish(self) -> ParsedDelta:
        """Return what the end of the answer completes. Raises what `_advance` raises."""
        return self._advance("", done=True)


def goes_on(last_message: Message | None) -> bool:
    """Return whether the conversation ends with the beginning of an answer, which the model goes on with."""
    # An empty assistant message asks for an answer like any other conversation.
    return last_message is not None and last_message.role == "assistant" and bool(last_message.content)
