"""Texts of one meaning, endlessly, from a seed: what llamita-embed learns from.

A meaning is anything that the conversations of llamita are about: a fact, a capital, the weather in a city, what is
told of a person. Two texts of one meaning are close, all others far.
"""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from train_demo.chat_skills import number_in_words
from train_demo.facts import CAPITAL_CLAUSES, CAPITAL_QUESTIONS, CAPITALS, FACTS, UNKNOWN_COUNTRIES
from train_demo.phrasings import PHRASES
from train_demo.wording import ask, reword, roughen
from train_demo.words import Random, a_city, a_name, a_number, a_thing, made_word

SYNONYMS: tuple[list[str], ...] = tuple(
    row.split() for row in tomllib.loads(Path(__file__).with_name("synonyms.toml").read_text())["same"]
)
_LINKS = (
    "the",
    "a",
    "is",
    "in",
    "of",
    "and",
    "to",
    "for",
    "on",
    "with",
    "was",
    "are",
    "that",
    "it",
    "my",
    "your",
    "this",
)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts of one meaning; pairs of equal ``meaning`` are not told apart."""

    meaning: str
    one: str
    other: str


def _fact(rng: Random) -> Pair:
    fact = rng.choice(FACTS)
    one = ask(rng, fact.questions, fact.clauses)
    other = fact.answer if rng.random() < 0.45 else ask(rng, fact.questions, fact.clauses)
    if other == fact.answer and rng.random() < 0.4:  # a part of the answer
        other = rng.choice([part for part in fact.answer.split(". ") if part])
    return Pair(fact.topic, one, other)


def _capital(rng: Random) -> Pair:
    known = rng.random() < 0.6
    country = (
        rng.choice(list(CAPITALS))
        if known
        else rng.choice((rng.choice(UNKNOWN_COUNTRIES), made_word(rng).capitalize()))
    )
    city = CAPITALS.get(country) or a_city(rng)
    questions = tuple(q.format(c=country) for q in CAPITAL_QUESTIONS)
    clauses = tuple(c.format(c=country) for c in CAPITAL_CLAUSES)
    answers = (
        f"The capital of {country} is {city}.",
        f"{city} is the capital of {country}.",
        f"{country}'s capital is {city}.",
    )
    other = rng.choice(answers) if rng.random() < 0.5 else ask(rng, questions, clauses)
    return Pair("capital " + country, ask(rng, questions, clauses), other)


def _unknown(rng: Random) -> Pair:
    fill = {
        "n": rng.choice(PHRASES["nouns"]) if rng.random() < 0.7 else made_word(rng),
        "m": rng.choice(PHRASES["nouns"]) if rng.random() < 0.7 else made_word(rng),
        "v": rng.choice(PHRASES["verbs"]),
        "a": rng.choice(PHRASES["adjectives"]),
        "w": made_word(rng, (2, 3)),
        "p": a_name(rng),
        "c": a_city(rng),
        "d": a_city(rng),
        "y": str(rng.randint(1000, 2030)),
        "k": rng.choice(list(CAPITALS)),
    }
    text = rng.choice(PHRASES["unknown"]).format(**fill)
    return Pair(text, roughen(rng, reword(rng, text)), roughen(rng, reword(rng, text)))


def _outside(rng: Random) -> Pair:
    """The weather or the time in a city: questions, and what one is told."""
    city = a_city(rng)
    kind = rng.choice(("weather", "time"))
    one, other = (rng.choice(PHRASES[kind]).format(c=city) for _ in range(2))
    if rng.random() < 0.3:
        sky = rng.choice(PHRASES["skies"])
        other = (
            rng.choice(
                (
                    f"It is {sky} in {city}.",
                    f"The weather in {city}: {sky}.",
                    f"{rng.randint(-9, 39)} degrees in {city}",
                )
            )
            if kind == "weather"
            else rng.choice(
                (f"The time in {city}: {rng.randint(0, 23)}:{rng.randint(10, 59)}.", f"The clock in {city} says ten.")
            )
        )
    return Pair(f"{kind} {city}", roughen(rng, one), other)


def _told(rng: Random) -> Pair:
    """One thing about a person or an article, told in two ways."""
    if rng.random() < 0.6:
        subject = a_name(rng)
        key = rng.choice(("age", "city", "job", "hobbies"))
        value = {
            "age": lambda: str(rng.randint(1, 99)),
            "city": lambda: a_city(rng),
            "job": lambda: rng.choice(PHRASES["jobs"]),
            "hobbies": lambda: rng.choice(PHRASES["hobbies"]),
        }[key]()
        forms, asked = (
            PHRASES["person_" + key],
            {
                "age": (f"How old is {subject}?", f"What is the age of {subject}?"),
                "city": (f"Where does {subject} live?", f"In which city is {subject}?"),
                "job": (f"What is the job of {subject}?", f"What does {subject} do for work?"),
                "hobbies": (f"What does {subject} like?", f"Which hobbies has {subject}?"),
            }[key],
        )
    else:
        subject = "the " + a_thing(rng)
        key = rng.choice(("price", "color", "quantity"))
        value = rng.choice(PHRASES["colors"]) if key == "color" else str(a_number(rng))
        forms, asked = (
            PHRASES["item_" + key],
            {
                "price": (f"What does {subject} cost?", f"How much is {subject}?", f"The price of {subject}?"),
                "color": (f"What color is {subject}?", f"Which color has {subject}?"),
                "quantity": (f"How many of {subject} are there?", f"How many of {subject} are in stock?"),
            }[key],
        )
    one, other = (f"{subject}: {rng.choice(forms).format(v=value)}" for _ in range(2))
    one = one.replace(":", rng.choice(("", ",", ":")), 1)
    if rng.random() < 0.4:  # a question has no value: all of this subject and key are one
        return Pair(f"{subject} {key}", rng.choice(asked), one)
    return Pair(f"{subject} {key}", one, other.replace(":", "", 1))


def _small_talk(rng: Random) -> Pair:
    chance = rng.random()
    if chance < 0.35:
        a, b = rng.randint(0, 99), rng.randint(0, 99)
        texts = [
            rng.choice(PHRASES["sums"]).format(a=a, b=b)
            if rng.random() < 0.6
            else rng.choice(PHRASES["word_sums"]).format(a=number_in_words(rng, a), b=number_in_words(rng, b))
            for _ in range(2)
        ]
        return Pair(f"{a} + {b}", texts[0], texts[1])
    if chance < 0.55:
        name = a_name(rng)
        one, other = (
            rng.choice(PHRASES["name_told"]).format(n=name, c=a_city(rng), y=rng.randint(5, 90)) for _ in range(2)
        )
        return Pair("name " + name, one, other)
    kind = rng.choice(("hellos", "thanks", "byes", "name_asked", "who", "as_json"))
    return Pair(kind, rng.choice(PHRASES[kind]), roughen(rng, rng.choice(PHRASES[kind])))


def _words(rng: Random) -> Pair:
    """A few words with meaning: their order and the small words between them count for little."""
    same = [rng.choice(SYNONYMS) for _ in range(rng.choice((0, 1, 1, 2, 2, 3)))]
    kept: list[str | list[str]] = [
        rng.choice(
            (
                a_name,
                a_city,
                a_thing,
                a_thing,
                made_word,
                lambda r: r.choice(PHRASES["verbs"]),
                lambda r: str(a_number(r)),
            )
        )(rng)
        for _ in range(rng.choice((0, 1, 1, 2)) or int(not same))
    ]
    kept += same
    rng.shuffle(kept)

    def sentence() -> str:
        order = rng.sample(kept, len(kept)) if rng.random() < 0.4 else kept
        if len(order) > 2 and rng.random() < 0.3:
            order = [each for each in order if each is not order[rng.randrange(len(order))]]
        out: list[str] = []
        for each in order:
            out += rng.sample(_LINKS, rng.choice((0, 0, 1, 1, 2)))
            out.append(each if isinstance(each, str) else rng.choice(each))
        text = " ".join(out)
        return text[:1].upper() + text[1:] + rng.choice((".", "?", "", "!"))

    return Pair(" ".join(each if isinstance(each, str) else each[0] for each in kept), sentence(), sentence())


def _passage(rng: Random) -> Pair:
    """A question, and a passage of several sentences in which its answer stands."""
    pairs = [rng.choice((_fact, _capital, _told, _words))(rng) for _ in range(rng.choice((2, 2, 3, 4)))]
    return Pair(pairs[0].meaning, pairs[0].one, " ".join(pair.other for pair in rng.sample(pairs, len(pairs))))


_KINDS: tuple[tuple[Callable[[Random], Pair], float], ...] = (
    (_fact, 6.0),
    (_capital, 3.0),
    (_unknown, 4.0),
    (_outside, 2.0),
    (_told, 3.0),
    (_small_talk, 2.0),
    (_words, 7.0),
    (_passage, 1.5),
)


def pair(rng: Random) -> Pair:
    """One pair of texts."""
    return rng.choices([f for f, _ in _KINDS], [w for _, w in _KINDS])[0](rng)
