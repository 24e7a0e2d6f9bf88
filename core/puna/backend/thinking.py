"""The thinking of a sequence: the texts that mark it, and the budget of tokens that closes it.

Theory. A model marks its thinking by texts in its output, such as `<think>` and `</think>`. The core knows them, since
its parsers take answers apart by them; a backend knows the tokens. So the core sends the markers, and the backend feeds
a ThinkingTracker with the bytes of each sampled token. The tracker has four states: BEFORE the first text, THINKING,
BETWEEN two thoughts, and OVER, in which nothing can follow that counts. A token counts as thinking if it begins behind
a start marker and in front of the end marker. An end marker of several tokens shows only with its last one, so its
first tokens are counted at first and then taken off.

When the budget is spent, the backend appends the tokens of the closing text as if it had sampled them, without those
at its beginning that the model has just written. They are output, and no thinking.
"""

from dataclasses import dataclass
from enum import Enum, auto


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinkingMarkers:
    """The texts around the thinking of a sequence."""

    starts: tuple[str, ...] = ()
    """Texts that begin thinking. May be empty if `open` is true."""
    open: bool = False
    """Whether the output begins within thinking, since the prompt ends with a start. The output may repeat it."""
    again: bool = False
    """Whether thinking may begin anew after other text; otherwise it can only be the first text of the output."""
    ends: tuple[str, ...]
    """Texts that end thinking, such as the closing tag and the start of a tool call."""
    closings: tuple[str, ...]
    """Texts that close thinking, with special tokens. The first is for the first time that the budget closes it, and so
    on; the last is for all further times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinkingBudget:
    """A limit on the thinking of a sequence."""

    max_tokens: int
    """Largest number of tokens of all thinking in the sequence; 0: thinking is closed as soon as it begins."""
    markers: ThinkingMarkers


class _State(Enum):
    BEFORE = auto()
    THINKING = auto()
    BETWEEN = auto()
    OVER = auto()


_SPACE = b" \t\n\r\v\f"


class ThinkingTracker:
    """Counts the thinking tokens of one sequence, and says when the budget closes the thinking."""

    def __init__(self, budget: ThinkingBudget) -> None:
        markers = budget.markers
        self._max_tokens = budget.max_tokens
        self._starts = tuple(each.encode() for each in markers.starts)
        self._ends = tuple(each.encode() for each in markers.ends)
        self._again = markers.again
        self._closings = markers.closings
        self._closed = 0
        self._state = _State.THINKING if markers.open else _State.BEFORE
        self._may_repeat_start = markers.open and bool(self._starts)
        self._held = b""
        """The last bytes, which may hold the beginning of a marker."""
        self._begins: list[int] = []
        """Where the tokens begin in `_held`. Those of a thought only."""
        self.spent = 0
        """The thinking tokens so far."""

    @property
    def due(self) -> bool:
        """Whether the next token must be the first one of the closing text."""
        return self._state is _State.THINKING and self.spent >= self._max_tokens

    @property
    def over(self) -> bool:
        """Whether no further token can be thinking, so that `feed` need not be called any more."""
        return self._state is _State.OVER

    def feed(self, raw: bytes) -> None:
        """Take the bytes of the next token that was sampled."""
        if self._state is _State.THINKING:
            self._think(raw)
        elif self._state is not _State.OVER:
            self._held += raw
            self._look()

    def close(self) -> str:
        """Enter the state behind the closing text, and return that text. The tokens of the text are not fed."""
        closing = self._closings[min(self._closed, len(self._closings) - 1)]
        self._closed += 1
        self._leave(b"")
        return closing

    def _think(self, raw: bytes) -> None:
        self._begins.append(len(self._held))
        self._held += raw
        self.spent += 1
        if self._may_repeat_start and self._passes_repeated_start():
            return
        place, end = min(
            ((place, end) for end in self._ends if (place := self._held.find(end)) >= 0), default=(-1, b"")
        )
        if end:
            # The marker may begin within a token, which then counts.
            self.spent -= sum(begin >= place for begin in self._begins)
            self._leave(self._held[place + len(end) :])
        elif not self._may_repeat_start:
            self._keep(max(map(len, self._ends)) - 1)

    def _passes_repeated_start(self) -> bool:
        """Pass a start marker at the beginning of thinking that the prompt has begun. Return whether it is there."""
        trimmed = self._held.lstrip(_SPACE)
        found = next((start for start in self._starts if trimmed.startswith(start)), None)
        self._may_repeat_start = found is None and any(start.startswith(trimmed) for start in self._starts)
        if found is None:
            return False
        self._held, self._begins, self.spent = trimmed[len(found) :], [], 0
        return True

    def _look(self) -> None:
        """Look for the start of thinking."""
        if self._state is _State.BEFORE and not self._again:
            trimmed = self._held.lstrip(_SPACE)
            if found := next((start for start in self._starts if trimmed.startswith(start)), b""):
                self._enter(trimmed[len(found) :])
            elif not any(start.startswith(trimmed) for start in self._starts):
                self._state = _State.OVER
            return
        place, start = min(
            ((place, start) for start in self._starts if (place := self._held.find(start)) >= 0), default=(-1, b"")
        )
        if start:
            self._enter(self._held[place + len(start) :])
        else:
            self._keep(max(map(len, self._starts)) - 1)

    def _enter(self, rest: bytes) -> None:
        # The rest belongs to the token that completed the marker, which does not count.
        self._state, self._held, self._begins = _State.THINKING, rest, []

    def _leave(self, rest: bytes) -> None:
        self._begins, self._may_repeat_start = [], False
        self._state = _State.BETWEEN if self._again and self._starts else _State.OVER
        self._held = rest if self._state is _State.BETWEEN else b""

    def _keep(self, length: int) -> None:
        """Drop all but the last bytes, and the tokens that begin before them."""
        cut = len(self._held) - length
        if cut > 0:
            self._held = self._held[cut:]
            self._begins = [begin - cut for begin in self._begins if begin >= cut]
