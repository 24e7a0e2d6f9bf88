"""The one interface of everything that reads what a model writes: text in, thinking, content and tool calls out.

A parser reads one answer. The serving layer feeds it each text that the backend decodes and calls `finish` once, after
the last text. A parser passes on what is certain: it holds back the end of a text that could be the start of a marker,
and releases it with the next text, or with `finish`. So the parts of all deltas, joined, do not depend on where the
text was cut, unless a parser imitates Ollama where the cut shows.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from puna.backend.thinking import ThinkingMarkers
from puna.messages import ToolCall


@dataclass(frozen=True, slots=True)
class ParsedDelta:
    """What one text completes. Any part may be empty."""

    content: str = ""
    thinking: str = ""
    calls: tuple[ToolCall, ...] = ()
    """Complete calls, numbered through the answer. The id is empty unless the model's format has ids."""
    waits: bool = False
    """True if the parser of thinking holds back the whole text: Ollama's chat then sends nothing at all, not even the
    log-probabilities of the text."""


class AnswerParser(Protocol):
    """Reads one answer, from its first text to its end."""

    def feed(self, text: str) -> ParsedDelta:
        """Return what `text` completes. Raises BackendFailedError where Ollama fails for what the model wrote."""
        ...

    def finish(self) -> ParsedDelta:
        """Return what was held back, after the last text. Raises as `feed` does."""
        ...


@runtime_checkable
class MarksThinking(Protocol):
    """A parser of answers that may hold thinking, which a budget of tokens can close."""

    def thinking_markers(self) -> ThinkingMarkers | None:
        """Return the texts around the thinking of the answer, before its first text; None: it cannot have thinking."""
        ...


@dataclass(frozen=True, slots=True)
class OpenCalls:
    """The calls that a parser of answers is waiting for, as the model has written them so far."""

    text: str
    name: str = ""
    """The tool, where the parser knows it already; `text` then begins with the arguments."""
    several: bool = False
    """Whether the parser waits for further calls after the first one."""


@runtime_checkable
class ShowsOpenCalls(Protocol):
    """A parser of answers whose calls can be read while the model writes them: see puna.prompt.call_deltas."""

    @property
    def open_calls(self) -> OpenCalls | None:
        """The calls for which the parser is waiting; None: for none."""
        ...
