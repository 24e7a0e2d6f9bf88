"""Workloads: sessions of requests, drawn from a seed.

A session is a client that sends a request, waits for the answer, thinks, and sends the next one. Lengths and pauses are
drawn from distributions whose means stand here; they are round figures of the kind that published traces of chats and
agents have, and not a trace.
"""

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from tools.simulate.prompts import Prompt

SYSTEM_PROMPTS: Final = 20
DOCUMENTS: Final = 400


@dataclass(frozen=True, slots=True)
class Turn:
    """One request of a session."""

    prompt: Prompt
    output_tokens: int
    pause: float
    """Seconds between the end of the previous answer and this request; of the first turn: 0."""
    answered: Prompt | None = None
    """The prompt with its answer, if the next turn continues it."""


Session = list[Turn]


def _length(draw: random.Random, mean: float) -> int:
    """Draw a number of tokens: log-normal with a standard deviation of 0.6 in the logarithm, at least 4."""
    return max(round(draw.lognormvariate(0, 0.6) * mean / 1.197), 4)


def _popular(draw: random.Random, count: int) -> int:
    """Draw an index below `count`, the first ones more often: by Zipf's law with exponent 1."""
    return min(int(count ** draw.random()), count) - 1


def _conversation(draw: random.Random, start: Prompt, turns: int, said: float, answer: float, pause: float) -> Session:
    session, prompt = [], start
    for index in range(turns):
        prompt = prompt.unique(_length(draw, said))
        output = _length(draw, answer)
        answered = prompt.unique(output)
        session.append(Turn(prompt, output, draw.expovariate(1 / pause) if index else 0.0, answered))
        prompt = answered
    return session


def chats(draw: random.Random, root: Prompt) -> Iterator[Session]:
    """Conversations of about five turns, with one of twenty system prompts of 800 tokens."""
    while True:
        start = root.then(("system", _popular(draw, SYSTEM_PROMPTS)), 800)
        yield _conversation(draw, start, 1 + min(int(draw.expovariate(1 / 4.5)), 30), 60, 150, 8.0)


def retrieval(draw: random.Random, root: Prompt) -> Iterator[Session]:
    """Questions about three of 400 documents of 500 tokens each, after one system prompt."""
    while True:
        prompt = root.then("system", 300)
        for document in (_popular(draw, DOCUMENTS) for _ in range(3)):
            prompt = prompt.then(("document", document), 500)
        yield [Turn(prompt.unique(_length(draw, 40)), _length(draw, 120), 0.0)]


def agents(draw: random.Random, root: Prompt) -> Iterator[Session]:
    """Loops of about 15 tool calls, with one of four lists of tools of 3,000 tokens and results of 400 tokens."""
    while True:
        start = root.then(("tools", draw.randrange(4)), 3000)
        yield _conversation(draw, start, 2 + int(draw.expovariate(1 / 13)), 400, 60, 1.0)


def unique(draw: random.Random, root: Prompt) -> Iterator[Session]:
    """Single prompts of about 800 tokens that share nothing."""
    while True:
        yield [Turn(root.unique(_length(draw, 800)), _length(draw, 120), 0.0)]


def bursts(draw: random.Random, root: Prompt) -> Iterator[Session]:
    """Single prompts of about 800 tokens that share a system prompt, in groups of 40 that arrive at once."""
    while True:
        start = root.then(("system", _popular(draw, SYSTEM_PROMPTS)), 600)
        yield [Turn(start.unique(_length(draw, 200)), _length(draw, 120), 0.0)]


WORKLOADS: Final[Mapping[str, Callable[[random.Random, Prompt], Iterator[Session]]]] = {
    "chats": chats,
    "retrieval": retrieval,
    "agents": agents,
    "bursts": bursts,
    "unique": unique,
}
GROUP: Final = {"bursts": 40}
"""Number of sessions that arrive at once; 1 where a workload is not named."""


def arrivals(name: str, seed: int, requests: int, per_second: float) -> list[tuple[float, Session]]:
    """Draw sessions until they have so many requests, with the times at which they begin.

    `per_second`: mean number of requests that begin in a second if no answer is waited for.
    """
    draw = random.Random(seed)
    sessions = WORKLOADS[name](draw, Prompt())
    chosen, total = [], 0
    for session in sessions:
        chosen.append(session)
        total += len(session)
        if total >= requests:
            break
    group = GROUP.get(name, 1)
    gap = group * total / len(chosen) / per_second
    moments = itertools.accumulate(draw.expovariate(1 / gap) for _ in range(0, len(chosen), group))
    return [(moment, each) for moment, each in zip(_repeated(moments, group), chosen, strict=False)]


def fitting(sessions: list[tuple[float, Session]], context_length: int) -> list[tuple[float, Session]]:
    """Leave out the requests that a context of so many tokens has no room for, and those that follow them."""
    found = []
    for moment, session in sessions:
        held = list(itertools.takewhile(lambda turn: turn.prompt.tokens + turn.output_tokens < context_length, session))
        if held:
            found.append((moment, held))
    return found


def _repeated(moments: Iterator[float], count: int) -> Iterator[float]:
    return (moment for moment in moments for _ in range(count))
