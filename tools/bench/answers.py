"""Answers of servers, with the times at which they came."""

import json
from dataclasses import dataclass, field


@dataclass(slots=True)
class Stream:
    """One answer as it came: seconds on one clock."""

    began: float
    arrivals: list[float] = field(default_factory=list)
    tokens: int = 0
    """Generated, as the server counts them; 0 if it does not say."""
    prompt_tokens: int = 0
    """Of the prompt, cached ones included; 0 if the server does not say."""
    lines: list[bytes] = field(default_factory=list)
    """What came over REST, unread: reading takes time that the servers need."""
    key: str = "response"
    """Under which a line has its text."""

    @property
    def text(self) -> str:
        """The answer."""
        return "".join(json.loads(line).get(self.key, "") for line in self.lines)

    @property
    def first(self) -> float:
        """Seconds to the first token."""
        return self.arrivals[0] - self.began

    @property
    def gaps(self) -> list[float]:
        """Seconds between tokens."""
        return [b - a for a, b in zip(self.arrivals, self.arrivals[1:], strict=False)]


@dataclass(slots=True)
class Outcome:
    """What a round of a scenario came to."""

    seconds: float
    streams: list[Stream] = field(default_factory=list)
    inputs: int = 0
    """Texts embedded."""
