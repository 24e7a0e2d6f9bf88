"""Greeting, facts, sums, names: what needs neither a schema nor a tool."""

import json
import string

from train_demo.facts import CAPITAL_CLAUSES, CAPITAL_QUESTIONS, CAPITALS, FACTS, UNKNOWN, UNKNOWN_COUNTRIES, Fact
from train_demo.number_words import in_words
from train_demo.phrasings import PHRASES
from train_demo.wording import Episode, ask, roughen, said
from train_demo.words import Random, a_city, a_name, a_number, a_thing, made_word

GREETING = "Hello! I am llamita, a tiny demo model. How can I help you?"

NO_NAME = "You have not told me your name yet."


def greet(rng: Random) -> Episode:
    """A greeting is greeted back."""
    text = rng.choice(PHRASES["hellos"])
    if rng.random() < 0.25:
        text = rng.choice(PHRASES["openings"]) + rng.choice((" ", ", ", " ", "! ")) + rng.choice(PHRASES["addressed"])
    text += rng.choice(("!", ".", "", "", "!!", ",", " :)")) if text[-1] not in "?!" else ""
    if rng.random() < 0.2:
        text = text.lower()
    elif rng.random() < 0.1:
        text = text.upper()
    return said(text, GREETING, "The user greets me. I greet back.")


def thank(rng: Random) -> Episode:
    """Thanks and farewells."""
    if rng.random() < 0.5:
        return said(roughen(rng, rng.choice(PHRASES["thanks"]) + "."), "You are welcome!", "The user thanks me.")
    return said(roughen(rng, rng.choice(PHRASES["byes"]) + "."), "Goodbye! Have a nice day.", "The user says goodbye.")


def fact(rng: Random) -> Episode:
    """Something it knows; now and then wanted as JSON."""
    weights = [4 if f.topic == "the blue sky" else 1 for f in FACTS]
    known = rng.choices(FACTS, weights)[0]
    return _fact_episode(rng, known)


def _fact_episode(rng: Random, known: Fact) -> Episode:
    question = ask(rng, known.questions, known.clauses)
    return _knowledge(rng, question, known.answer, f"The user asks about {known.topic}. I know this.")


def _knowledge(rng: Random, question: str, answer: str, thinking: str) -> Episode:
    if rng.random() < 0.04:
        return said(
            question + rng.choice(PHRASES["as_json"]), json.dumps({"answer": answer}, separators=(",", ":")), thinking
        )
    if rng.random() < 0.02:  # a grammar forces the form, the prompt does not say so
        text = json.dumps({"answer": answer}, separators=(",", ":"))
        return said(question, text, thinking, hidden=('{"',))
    return said(question, answer, thinking)


def capital(rng: Random) -> Episode:
    """The capital of a country, known or not."""
    known = rng.random() < 0.72
    if known:
        country = rng.choice(list(CAPITALS))
    elif rng.random() < 0.5:
        country = rng.choice(UNKNOWN_COUNTRIES)
    else:
        country = made_word(rng, (1, 2, 2, 3)).capitalize() + rng.choice(("", "", "", "land", "ia", "stan"))
    shown = country.removeprefix("the ") if rng.random() < 0.2 else country
    question = ask(
        rng, tuple(q.format(c=shown) for q in CAPITAL_QUESTIONS), tuple(c.format(c=shown) for c in CAPITAL_CLAUSES)
    )
    if not known:
        return said(question, UNKNOWN, "I do not know this.")
    answer = f"The capital of {country} is {CAPITALS[country]}."
    return _knowledge(rng, question, answer, f"The user asks about the capital of {country}. I know this.")


def _unknown_question(rng: Random) -> str:
    form = rng.choice(PHRASES["unknown"])
    noun, other = (rng.choice(PHRASES["nouns"]) if rng.random() < 0.6 else made_word(rng) for _ in range(2))
    return form.format(
        n=noun,
        m=other,
        v=rng.choice(PHRASES["verbs"]),
        a=rng.choice(PHRASES["adjectives"]),
        w=made_word(rng, (2, 3)),
        p=a_name(rng),
        c=a_city(rng),
        d=a_city(rng),
        y=rng.randint(1000, 2030),
        k=rng.choice(list(CAPITALS)),
    )


def unknown(rng: Random) -> Episode:
    """Something it does not know, and says so; also noise and long texts."""
    chance = rng.random()
    if chance < 0.82:
        text = roughen(rng, _unknown_question(rng))
    elif chance < 0.92:
        pool = [
            *PHRASES["nouns"],
            *PHRASES["adjectives"],
            *PHRASES["verbs"],
            "the",
            "a",
            "and",
            "of",
            "in",
            "is",
            "was",
            "with",
            "for",
            "to",
        ]
        text = " ".join(
            rng.choice(pool) if rng.random() < 0.8 else made_word(rng) for _ in range(rng.choice((3, 6, 12, 30, 60)))
        )
    elif chance < 0.96:
        text = " ".join(
            [rng.choice((made_word(rng), rng.choice(PHRASES["nouns"]), rng.choice("abcdexyz")))]
            * rng.choice((1, 2, 5, 20))
        )
    else:
        text = "".join(rng.choice(string.printable[:95]) for _ in range(rng.randint(1, 25))).strip() or "?"
    return said(text, UNKNOWN, "I do not know this.")


def unknown_harmless(rng: Random) -> Episode:
    """Something unknown that no tool of ours would answer either."""
    text = rng.choice(PHRASES["unknown_harmless"]).format(
        p=a_name(rng), w=made_word(rng, (2, 3)), n=rng.choice(PHRASES["nouns"]), a=rng.choice(PHRASES["adjectives"])
    )
    return said(roughen(rng, text), UNKNOWN, "I do not know this.")


def held_out_sum(a: int, b: int) -> bool:
    """Whether the pair is kept for the measure: about one in ten, whatever its digits."""
    return (a * 7919 + b * 104729 + a * b * 31) % 97 < 10


def sum_thinking(a: int, b: int) -> str:
    """Column addition in words."""
    ones = a % 10 + b % 10
    tens = a // 10 + b // 10
    carry = ones // 10
    head = f"{a} + {b}: {a % 10} + {b % 10} = {ones}"
    if carry:
        return f"{head}, carry 1, {a // 10} + {b // 10} + 1 = {tens + 1}."
    return f"{head}, {a // 10} + {b // 10} = {tens}."


def _pair(rng: Random) -> tuple[int, int]:
    while True:
        top = 49 if rng.random() < 0.8 else 99
        a, b = (rng.randint(0, top if rng.random() < 0.8 else 9) for _ in range(2))
        if not held_out_sum(a, b):
            return a, b


def small_sum(rng: Random) -> Episode:
    """A sum of two numbers of at most two digits, in pairs that the measure does not ask."""
    a, b = _pair(rng)
    words = rng.random() < 0.6
    if words and rng.random() < 0.4:
        a, b = _below_twenty(rng)
    text = rng.choice(PHRASES["word_sums"] if words and rng.random() < 0.45 else PHRASES["sums"])
    text = text.format(a=number_in_words(rng, a), b=number_in_words(rng, b)) if words else text.format(a=a, b=b)
    if rng.random() < 0.3:
        text = text[:1].upper() + text[1:]
    if rng.random() < 0.5:
        text = roughen(rng, text)
    return said(text, f"{a} + {b} = {a + b}.", sum_thinking(a, b))


def no_sum(rng: Random) -> Episode:
    """Arithmetic that it has not learned."""
    a, b = _pair(rng)
    words = rng.random() < 0.5
    text = rng.choice(PHRASES["no_sums"]).format(
        a=number_in_words(rng, a) if words else a, b=number_in_words(rng, b) if words else b
    )
    return said(roughen(rng, text), UNKNOWN, "I do not know this.")


def number_in_words(rng: Random, number: int) -> str:
    """A number below one hundred in words; now and then its digits, for sums of both."""
    return str(number) if rng.random() < 0.06 else in_words(number, rng.choice(("-", "-", " ")))


def _below_twenty(rng: Random) -> tuple[int, int]:
    while True:
        a, b = rng.randint(0, 20), rng.randint(0, 20)
        if not held_out_sum(a, b):
            return a, b


def tell_name(rng: Random, name: str) -> Episode:
    """The user gives a name."""
    text = rng.choice(PHRASES["name_told"]).format(n=name, c=a_city(rng), y=rng.randint(5, 90))
    return said(text, f"Nice to meet you, {name}!", f"The user is called {name}.")


def tell_some_name(rng: Random) -> Episode:
    """A name given while tools stand by."""
    return tell_name(rng, a_name(rng))


def recall_name(rng: Random, name: str | None) -> Episode:
    """The user asks for it."""
    text = rng.choice(PHRASES["name_asked"])
    if rng.random() < 0.3:
        text = roughen(rng, text)
    if name is None:
        return said(text, NO_NAME, "The user has not said a name.")
    return said(text, f"Your name is {name}.", f"The user is called {name}.")


def count_or_say(rng: Random) -> Episode:
    """Counting, and saying what it is told to say."""
    if rng.random() < 0.3:
        n = rng.randint(2, rng.choice((10, 20, 20, 60)))
        text = roughen(rng, rng.choice(PHRASES["counts"]).format(n=n))
        return said(text, ", ".join(str(i) for i in range(1, n + 1)) + ".", f"I count to {n}.")
    words = [
        rng.choice((a_thing(rng), made_word(rng), a_name(rng), str(a_number(rng))))
        for _ in range(rng.choice((1, 1, 2, 3, 5)))
    ]
    text = " ".join(words)
    if rng.random() < 0.1:
        text = text.upper()
    return said(rng.choice(PHRASES["say"]).format(t=text), text, f"I say {text}.")
