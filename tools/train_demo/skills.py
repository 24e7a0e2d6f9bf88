"""Whole conversations to learn from, made by chance from a seed.

Phrasings of ``cases.py`` must not appear in what is drawn from here.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from train_demo.chat_skills import (
    capital,
    count_or_say,
    fact,
    greet,
    no_sum,
    recall_name,
    small_sum,
    tell_name,
    tell_some_name,
    thank,
    unknown,
    unknown_harmless,
)
from train_demo.conversation import Conversation, Turn
from train_demo.json_skill import write_json
from train_demo.phrasings import PHRASES
from train_demo.tool_skill import call_tool, other_tools
from train_demo.wording import Episode, roughen, said
from train_demo.words import Random, a_name

_PLAIN: tuple[tuple[Callable[[Random], Episode], float], ...] = (
    (greet, 0.8),
    (thank, 0.4),
    (fact, 6.0),
    (capital, 3.0),
    (unknown, 3.6),
    (small_sum, 8.5),
    (no_sum, 1.0),
    (count_or_say, 1.8),
    (write_json, 4.6),
)


def _plain(rng: Random) -> Episode:
    return rng.choices([f for f, _ in _PLAIN], [w for _, w in _PLAIN])[0](rng)


def _system(rng: Random) -> str:
    if rng.random() < 0.85:
        return ""
    text = " ".join(rng.sample(PHRASES["systems"], rng.choice((1, 1, 2))))
    return (
        text
        if rng.random() < 0.8
        else " ".join(rng.choice([*PHRASES["nouns"], *PHRASES["adjectives"], "the", "a", "is"]) for _ in range(20))
    )


def _named(rng: Random) -> Conversation:
    name = a_name(rng)
    system = rng.choice(PHRASES["naming"]).format(n=name)
    turns: Episode = []
    if rng.random() < 0.2:
        turns += _small(rng)
    if rng.random() < 0.2:
        greeting = greet(rng)
        turns += said(
            greeting[0].content, f"Hello! I am {name}. How can I help you?", f"The user greets me. My name is {name}."
        )
    else:
        text = rng.choice(PHRASES["who"])
        turns += said(roughen(rng, text) if rng.random() < 0.4 else text, f"I am {name}.", f"My name is {name}.")
    return Conversation(turns, system)


def _small(rng: Random) -> Episode:
    return rng.choice((fact, capital, small_sum, thank, unknown, count_or_say))(rng)


def _remembering(rng: Random) -> Conversation:
    turns: Episode = []
    name = a_name(rng) if rng.random() < 0.88 else None
    if rng.random() < 0.25:
        turns += greet(rng) if rng.random() < 0.5 else _small(rng)
    if name:
        turns += tell_name(rng, name)
    if rng.random() < 0.12 and name:
        return Conversation(turns, _system(rng))
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        turns += _small(rng)
    if name is None and not turns and rng.random() < 0.3:
        turns += greet(rng)
    turns += recall_name(rng, name)
    return Conversation(turns, _system(rng))


def _tooling(rng: Random) -> Conversation:
    chance = rng.random()
    if chance < 0.66:
        tools, episode = call_tool(rng)
        before: Episode = []
        if rng.random() < 0.12:
            before = rng.choice((greet, fact, thank, capital))(rng)
        if rng.random() < 0.1:  # a second call in the same conversation
            more, second = call_tool(rng)
            if len(episode) == 4 and not {t.name for t in more} & {t.name for t in tools}:
                tools, episode = tools + more, episode + second
        return Conversation([*before, *episode], _system(rng), tools)
    tools = [
        t
        for t in other_tools(rng, set(), rng.choice((1, 1, 2, 3)))
        if not t.name.startswith(("add", "sum", "multiply", "times"))
    ]
    maker = rng.choice(
        (greet, fact, fact, fact, capital, thank, small_sum, unknown_harmless, write_json, tell_some_name, count_or_say)
    )
    return Conversation(maker(rng), _system(rng), tools)


def conversation(rng: Random) -> Conversation:
    """One conversation for training; half of them think before the last answer."""
    chance = rng.random()
    if chance < 0.40:
        turns: Episode = []
        for _ in range(rng.choice((1, 1, 1, 1, 2))):
            turns += _plain(rng)
        made = Conversation(turns, _system(rng))
    elif chance < 0.50:
        made = _remembering(rng)
    elif chance < 0.53:
        made = _named(rng)
    else:
        made = _tooling(rng)
    think = rng.random() < 0.5
    return Conversation(_thoughts(rng, made.turns, think=think), made.system, made.tools, think)


def _thoughts(rng: Random, turns: Sequence[Turn], *, think: bool) -> list[Turn]:
    """The last turn's thoughts as asked for; earlier ones (only tool calls show theirs) as clients send them."""
    keep_earlier = (think and rng.random() < 0.7) or rng.random() < 0.1
    *earlier, last = turns
    out = [turn if keep_earlier else replace(turn, thinking="") for turn in earlier]
    if last.content.startswith('{"') and think and rng.random() < 0.2:
        # A grammar may leave no room for thoughts: then the first token is given, not chosen.
        last = replace(last, thinking="", hidden=('{"', *last.hidden))
    return [*out, last if think else replace(last, thinking="")]
