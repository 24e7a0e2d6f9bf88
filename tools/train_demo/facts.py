"""What llamita knows (``facts.toml``), and what it says of all else.

The phrasings of the measure stand in ``held_out.toml`` and must not be copied to the facts.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing to know: what it is about, direct questions, indirect clauses ("why the sky is blue"), the answer."""

    topic: str
    questions: tuple[str, ...]
    clauses: tuple[str, ...]
    answer: str


_KNOWN: dict[str, Any] = tomllib.loads(Path(__file__).with_name("facts.toml").read_text())

FACTS: tuple[Fact, ...] = tuple(
    Fact(row["topic"], tuple(row["questions"]), tuple(row["clauses"]), row["answer"]) for row in _KNOWN["facts"]
)
SKY = FACTS[0].answer
CAPITALS: dict[str, str] = _KNOWN["capitals"]
CAPITAL_QUESTIONS: tuple[str, ...] = tuple(_KNOWN["capital_questions"])
CAPITAL_CLAUSES: tuple[str, ...] = tuple(_KNOWN["capital_clauses"])
UNKNOWN_COUNTRIES: list[str] = _KNOWN["unknown_countries"]
UNKNOWN = "Sorry, I do not know that. I am llamita, only a tiny demo model."
