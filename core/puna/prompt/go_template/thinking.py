"""Reads thinking between two tags at the start of an answer; everything else is content.

States: LOOKING until the text begins with the opening tag, or cannot; EATING_AFTER_OPENING and EATING_AFTER_CLOSING
drop white space; THINKING until the closing tag, holding back what could be its start; CONTENT for the rest.
"""

from enum import Enum, auto

from puna.backend.thinking import ThinkingMarkers
from puna.go.space import SPACE
from puna.prompt.markers import overlap
from puna.prompt.parsed import ParsedDelta


class _State(Enum):
    LOOKING = auto()
    EATING_AFTER_OPENING = auto()
    THINKING = auto()
    EATING_AFTER_CLOSING = auto()
    CONTENT = auto()


class ThinkingParser:
    """Reads one answer. Tags after the start of content are ordinary text."""

    def __init__(self, opening: str, closing: str, *, started: bool = False) -> None:
        """started: the prompt ends with the opening tag."""
        self._opening = opening
        self._closing = closing
        self._started = started
        self._held = ""
        self._state = _State.EATING_AFTER_OPENING if started else _State.LOOKING

    def anew(self) -> "ThinkingParser":
        """Return a parser for another answer to the same prompt."""
        return ThinkingParser(self._opening, self._closing, started=self._started)

    def markers(self) -> ThinkingMarkers:
        """Return the tags around the thinking, before the first text."""
        return ThinkingMarkers(
            starts=() if self._started else (self._opening,),
            open=self._started,
            ends=(self._closing,),
            closings=(f"{self._closing}\n\n",),
        )

    def feed(self, text: str) -> ParsedDelta:
        """Return the thinking and the content that `text` completes."""
        self._held += text
        thinking, content = "", ""
        while True:
            state = self._state
            more_thinking, more_content = self._step()
            thinking += more_thinking
            content += more_content
            # A state that did not change needs more text.
            if self._state is state or not self._held:
                return ParsedDelta(content, thinking, waits=not (content or thinking))

    def finish(self) -> ParsedDelta:
        """Return nothing: text that waits for the rest of a tag is lost, as in Ollama."""
        return ParsedDelta()

    def _step(self) -> tuple[str, str]:
        match self._state:
            case _State.LOOKING:
                return self._look()
            case _State.EATING_AFTER_OPENING:
                self._eat(_State.THINKING)
                return "", ""
            case _State.THINKING:
                return self._think(), ""
            case _State.EATING_AFTER_CLOSING:
                self._eat(_State.CONTENT)
                return "", ""
            case _State.CONTENT:
                return "", self._take(len(self._held))

    def _look(self) -> tuple[str, str]:
        trimmed = self._held.lstrip(SPACE)
        if trimmed.startswith(self._opening):
            self._held = trimmed[len(self._opening) :]
            self._state = _State.EATING_AFTER_OPENING
        # Text that is only white space or the beginning of the tag decides nothing yet.
        elif not self._opening.startswith(trimmed):
            self._state = _State.CONTENT
        return "", ""

    def _eat(self, following: _State) -> None:
        # The state lasts until another character comes, so white space may arrive in any number of texts.
        self._held = self._held.lstrip(SPACE)
        if self._held:
            self._state = following

    def _think(self) -> str:
        thinking, found, rest = self._held.partition(self._closing)
        if found:
            self._held = rest
            self._state = _State.EATING_AFTER_CLOSING
            return thinking
        return self._take(len(self._held) - overlap(self._held, self._closing))

    def _take(self, length: int) -> str:
        taken, self._held = self._held[:length], self._held[length:]
        return taken
