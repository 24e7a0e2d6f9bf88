"""Words, names and numbers drawn by chance, most of them never seen before."""

import random
import re
import string
from collections.abc import Sequence

from train_demo.phrasings import PHRASES


class Random(random.Random):
    """A seeded source of chance that also knows the pieces of words that need practice (none at first)."""

    pieces: Sequence[str] = ()


_CODAS = [
    "",
    "",
    "",
    "",
    *["n", "n", "l", "r", "s", "t", "m", "d", "k", "x", "nd", "rk", "st", "ck", "lt", "th", "ng", "sh"],
]


REAL_WORDS = sorted(
    {word for words in PHRASES.values() for text in words for word in re.findall("[a-z]{3,}", text.lower())}
)


def _slice(rng: Random, word: str) -> str:
    start = rng.randrange(len(word) - 1)
    return word[start : start + rng.randint(2, 5)]


def made_word(rng: Random, syllables: tuple[int, ...] = (1, 2, 2, 3)) -> str:
    """A word that means nothing, in lower case."""
    if rng.pieces and rng.random() < 0.4:  # rare pieces would not be copied otherwise: most stand inside one word only
        return "".join(rng.choice(rng.pieces) for _ in range(rng.choice((1, 2, 2, 3))))
    if rng.random() < 0.5:  # pieces of real words, so that every piece of the vocabulary is copied now and then
        return "".join(_slice(rng, rng.choice(REAL_WORDS)) for _ in range(rng.choice((1, 2, 2, 3))))
    return "".join(
        rng.choice(PHRASES["onsets"]) + rng.choice(PHRASES["vowels"]) + rng.choice(_CODAS)
        for _ in range(rng.choice(syllables))
    )


def a_name(rng: Random) -> str:
    """A first name, mostly made up; now and then with a family name."""
    if rng.random() < 0.3:
        name = rng.choice(PHRASES["names"])
    elif rng.random() < 0.1:
        name = "".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(3, 7))).capitalize()
    else:
        name = made_word(rng).capitalize()
    return name if rng.random() < 0.9 else f"{name} {made_word(rng).capitalize()}"


def a_city(rng: Random) -> str:
    """A city, often made up."""
    if rng.random() < 0.5:
        return rng.choice(PHRASES["cities"])
    return made_word(rng).capitalize() if rng.random() < 0.9 else "New " + made_word(rng).capitalize()


def a_thing(rng: Random) -> str:
    """A noun, now and then with an adjective, now and then made up."""
    noun = rng.choice(PHRASES["nouns"]) if rng.random() < 0.6 else made_word(rng)
    return noun if rng.random() < 0.8 else f"{rng.choice(PHRASES['adjectives'])} {noun}"


def a_number(rng: Random) -> int:
    """A number of one to four digits, short ones, years and repeated digits more often."""
    chance = rng.random()
    if chance < 0.1:
        return rng.randint(1900, 2100)
    if chance < 0.2:
        digits = rng.sample("0123456789", 2)
        return int("".join(rng.choice(digits) for _ in range(rng.randint(2, 5))))
    return rng.randint(*rng.choice(((0, 9), (10, 99), (10, 99), (100, 999), (1000, 9999))))
