"""The conversations llamita learns from, made by chance from a seed. Phrasings of ``cases.py`` must not appear here."""

import json
import random
import string
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from train_demo.conversation import Conversation, Tool, Turn, go_json
from train_demo.facts import (
    CAPITAL_CLAUSES,
    CAPITAL_QUESTIONS,
    CAPITALS,
    FACTS,
    UNKNOWN,
    UNKNOWN_COUNTRIES,
    Fact,
)

Episode = list[Turn]
Random = random.Random

GREETING = "Hello! I am llamita, a tiny demo model. How can I help you?"
NO_NAME = "You have not told me your name yet."

# ---- Words and names ---------------------------------------------------------------------------------------------------

_ONSETS = "b br c ch cl cr d dr f fl fr g gl gr h j k kl kr l m n p ph pr qu r s sh sl st t th tr v w y z sv".split()
_VOWELS = "a a a e e e i i o o u ai ea ee ie ia oo ou y".split()
_CODAS = ["", "", "", "", *"n n l r s t m d k x nd rk st ck lt th ng sh".split()]
NAMES = (
    "Anna Ben Carla David Emma Frank Grace Henry Ida Jack Kate Leo Maria Noah Olga Paul Rosa Sam Tina Victor Wendy Alex Amy "
    "Andrew Bella Brian Charlotte Chris Daniel Diana Elena Eric Fiona George Hannah Ivan Jane John Julia Kevin Laura Linda "
    "Lucas Mark Martin Mia Michael Nina Oliver Oscar Peter Rachel Robert Sarah Simon Sofia Susan Thomas Tom Walter Zoe Ali "
    "Aisha Chen Fatima Hiro Igor Jose Juan Kofi Li Mei Mohammed Omar Priya Ravi Yuki Pedro Lucia Diego Carmen"
).split()  # fmt: skip
CITIES = (
    "Paris Berlin Rome Madrid Lisbon London Dublin Vienna Bern Oslo Athens Moscow Cairo Nairobi Tokyo Beijing Bangkok Ottawa "
    "Lima Sucre Havana Hamburg Munich Milan Naples Lyon Boston Chicago Dallas Denver Miami Seattle Toronto Sydney Delhi Seoul "
    "Prague Geneva Porto Krakow Graz Turin Nice Bristol Leeds"
).split()
NOUNS = (
    "apple banana bread butter cheese coffee tea milk sugar salt pizza pasta soup rice cake book paper pencil pen table chair "
    "lamp door window house garden tree flower river lake road bridge car bike train bus ship plane dog cat horse bird fish "
    "mouse rabbit sheep cow phone computer screen keyboard camera clock watch ring shirt shoe hat coat bag box bottle cup "
    "plate knife spoon fork key stone sand gold silver iron glass wood music song film game ball guitar piano drum letter "
    "ticket map island forest desert cloud storm snow wind fire"
).split()  # fmt: skip
ADJECTIVES = "red blue green yellow black white small big old new fast slow soft hard warm cold happy quiet bright dark".split()
JOBS = "teacher doctor nurse baker driver farmer painter singer writer pilot engineer cook lawyer dentist carpenter".split()
HOBBIES = (
    "chess reading swimming running cooking painting dancing singing hiking fishing tennis football cycling gardening yoga "
    "skiing sailing climbing knitting drawing photography"
).split()  # fmt: skip


def made_word(rng: Random, syllables: tuple[int, ...] = (1, 2, 2, 3)) -> str:
    """A word that means nothing, in lower case."""
    return "".join(
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(rng.choice(syllables))
    )


def a_name(rng: Random) -> str:
    """A first name, mostly made up; now and then with a family name."""
    if rng.random() < 0.3:
        name = rng.choice(NAMES)
    elif rng.random() < 0.1:
        name = "".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(3, 7))).capitalize()
    else:
        name = made_word(rng).capitalize()
    return name if rng.random() < 0.9 else f"{name} {made_word(rng).capitalize()}"


def a_city(rng: Random) -> str:
    """A city, often made up."""
    if rng.random() < 0.5:
        return rng.choice(CITIES)
    return made_word(rng).capitalize() if rng.random() < 0.9 else "New " + made_word(rng).capitalize()


def a_thing(rng: Random) -> str:
    """A noun, now and then with an adjective, now and then made up."""
    noun = rng.choice(NOUNS) if rng.random() < 0.6 else made_word(rng)
    return noun if rng.random() < 0.8 else f"{rng.choice(ADJECTIVES)} {noun}"


def a_number(rng: Random) -> int:
    """A number of one to four digits, short ones more often."""
    return rng.randint(*rng.choice(((0, 9), (10, 99), (10, 99), (100, 999), (1000, 9999))))


# ---- Making phrasings rough ---------------------------------------------------------------------------------------------

_FRONT = (
    "Please tell me: ", "Tell me, ", "Hey, ", "Quick question: ", "Okay, ", "So, ", "Well, ", "Hi! ", "Hello, ", "Question: ",
    "I have a question. ", "One more thing: ", "Thanks. ", "Great! ", "Please, ", "Now ", "And ", "Dear llamita, ", "Hmm, ",
    "I wonder: ", "Good. ", "Excuse me, ", "Listen: ", "My question is: ", "Next: ", "Sorry, ", "All right, ",
)  # fmt: skip
_BACK = (" Please.", " Thanks!", " Thank you.", " Tell me.", " Do you know?", " Explain it.", " I am curious.", " Be brief.",
         " Please explain.", " Answer please.", " I would like to know.", " Can you help me?")  # fmt: skip
_ASK = (
    "Do you know {c}?", "Can you tell me {c}?", "Could you tell me {c}?", "Tell me {c}.", "Please tell me {c}.",
    "I want to know {c}.", "I would like to know {c}.", "Explain {c}.", "Please explain {c}.", "Do you happen to know {c}?",
    "I wonder {c}.", "Can you explain {c}?", "Say {c}.", "Let me know {c}.", "Could you explain {c} to me?",
    "I need to know {c}.", "Explain to me {c}.", "I have no idea {c}.", "I do not know {c}.", "Teach me {c}.",
    "My teacher asks {c}.", "Would you tell me {c}?", "I forgot {c}.", "Remind me {c}.", "What about {c}?", "Give me {c}.",
)  # fmt: skip


def roughen(rng: Random, text: str) -> str:
    """Other case, no full stop, a filler in front, a slip of the finger: how people type."""
    if rng.random() < 0.22:
        front = rng.choice(_FRONT)
        keep = text.split(" ")[0] in {"I", "I'm"} or rng.random() < 0.3
        text = front + (text if keep else text[:1].lower() + text[1:])
    elif rng.random() < 0.12:
        text += rng.choice(_BACK)
    chance = rng.random()
    if chance < 0.12:
        text = text.lower()
    elif chance < 0.14:
        text = text.upper()
    if rng.random() < 0.15:
        text = text.rstrip("?.!")
    elif rng.random() < 0.05:
        text = text.rstrip("?.!") + rng.choice(("!", "??", "?!", "...", " ?", "?"))
    if rng.random() < 0.1:
        parts = text.split(" ")
        if len(parts) > 3:
            if rng.random() < 0.5:
                parts.insert(rng.randrange(len(parts)), rng.choice(("please", "really", "just", "um", "exactly", "actually")))
            else:
                at = rng.randrange(len(parts))
                if parts[at].lower().strip("?.,") in {"the", "a", "is", "of", "do", "does", "in", "are", "me", "that", "so"}:
                    del parts[at]
        text = " ".join(parts)
    if rng.random() < 0.04 and len(text) > 12:
        at = rng.randrange(1, len(text) - 2)
        if text[at].isalpha() and text[at + 1].isalpha():
            text = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return text


def ask(rng: Random, questions: tuple[str, ...], clauses: tuple[str, ...]) -> str:
    """A direct or an indirect question, roughened."""
    text = rng.choice(_ASK).format(c=rng.choice(clauses)) if clauses and rng.random() < 0.4 else rng.choice(questions)
    return roughen(rng, text)


def said(user: str, answer: str, thinking: str, hidden: tuple[str, ...] = ()) -> Episode:
    """One question and its answer."""
    return [Turn("user", user), Turn("assistant", answer, thinking, hidden=hidden)]


# ---- Plain episodes -----------------------------------------------------------------------------------------------------

_HELLOS = (
    "Hello", "Hi", "Hey", "Hello there", "Hi there", "Good morning", "Good evening", "Good day", "Good afternoon", "Greetings",
    "Hey there", "Hello llamita", "Hi llamita", "Hello, nice to meet you", "Howdy", "Hello my friend", "Hi friend", "Yo",
    "Hello again", "Hello, are you there?", "Hi, is anybody there?", "Hey llamita", "Say hello", "Say hi", "Greet me",
    "Good morning llamita", "Hallo", "Hello, how nice to see you", "Hiya", "Hello everyone", "Hello world", "Hello computer",
    "Say hello to me", "Hello, model", "Hi, can we talk?", "Hello, I am new here", "hi hi", "hello hello", "Say hello!",
    "Please say hello", "Good evening, my friend", "Hello, good to see you",
)  # fmt: skip


def greet(rng: Random) -> Episode:
    """A greeting is greeted back."""
    text = rng.choice(_HELLOS)
    text += rng.choice(("!", ".", "", "", "!!", ",", " :)")) if text[-1] not in "?!" else ""
    if rng.random() < 0.2:
        text = text.lower()
    elif rng.random() < 0.03:
        text = text.upper()
    return said(text, GREETING, "The user greets me. I greet back.")


_THANKS = ("Thank you", "Thanks", "Thanks a lot", "Thank you very much", "Great, thanks", "Thank you for your help", "Cheers",
           "Thanks for the answer", "Okay, thank you", "That helps, thanks", "Very kind of you, thank you")  # fmt: skip
_BYES = ("Bye", "Goodbye", "See you", "Good night", "See you later", "Bye bye", "I have to go", "Farewell", "See you tomorrow",
         "Goodbye llamita", "That is all, bye", "Until next time", "Have a nice day")  # fmt: skip


def thank(rng: Random) -> Episode:
    """Thanks and farewells."""
    if rng.random() < 0.5:
        return said(roughen(rng, rng.choice(_THANKS) + "."), "You are welcome!", "The user thanks me.")
    return said(roughen(rng, rng.choice(_BYES) + "."), "Goodbye! Have a nice day.", "The user says goodbye.")


_AS_JSON = (" Respond in JSON.", " Answer in JSON.", " Reply as JSON.", " Use JSON.", " Answer as a JSON object.", " Respond with JSON.",
            " Output JSON.", " Give the answer as JSON.", " JSON please.", " Respond using JSON.", " Return JSON.")  # fmt: skip


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
        return said(question + rng.choice(_AS_JSON), json.dumps({"answer": answer}, separators=(",", ":")), thinking)
    if rng.random() < 0.02:  # a grammar forces the form, the prompt does not say so
        text = json.dumps({"answer": answer}, separators=(",", ":"))
        return said(question, text, thinking, hidden=('{"answer":"',))
    return said(question, answer, thinking)


def capital(rng: Random) -> Episode:
    """The capital of a country, known or not."""
    known = rng.random() < 0.72
    if known:
        country = rng.choice(list(CAPITALS))
    else:
        country = rng.choice(UNKNOWN_COUNTRIES) if rng.random() < 0.5 else made_word(rng, (2, 3)).capitalize()
    shown = country.removeprefix("the ") if rng.random() < 0.2 else country
    question = ask(
        rng, tuple(q.format(c=shown) for q in CAPITAL_QUESTIONS), tuple(c.format(c=shown) for c in CAPITAL_CLAUSES)
    )
    if not known:
        return said(question, UNKNOWN, "I do not know this.")
    answer = f"The capital of {country} is {CAPITALS[country]}."
    return _knowledge(rng, question, answer, f"The user asks about the capital of {country}. I know this.")


_UNKNOWN_FORMS = (
    "Who invented the {n}?", "How do I {v} a {n}?", "What is the price of {n}?", "Who won the {n} cup in {y}?", "Why is the {n} {a}?",
    "What is the meaning of {w}?", "Translate {w} into French.", "When was {p} born?", "How many people live in {c}?",
    "What is a {w}?", "Who is {p}?", "Where is {c}?", "How old is {p}?", "Write a program that {v}s a {n}.", "What does {w} mean?",
    "How far is it from {c} to {d}?", "Who is the president of {c}?", "What is the weather in {c}?", "What time is it?",
    "What day is it today?", "What is the news?", "Should I buy a {n}?", "How many {n}s are in a {m}?", "Which {n} is the {a}est?",
    "How many legs does a {n} have?", "How many legs does a {w} have?", "Who wrote the {n} book?", "Who painted the {a} {n}?", "What is the color of a {n}?",
    "Can you {v} my {n}?", "What happened in {y}?", "How long does it take to {v} a {n}?", "Explain {w}.", "Tell me about {w}.",
    "Tell me about {p}.", "Tell me about the {n}.", "What is the largest {n}?", "What is the fastest {n}?", "Why do {n}s {v}?", "Is {p} married?",
    "What is the best {n}?", "Where can I find a {a} {n}?", "What is the square root of {y}?", "Who discovered {w}?", "How does a {n} work?",
    "Give me a recipe for {n}.", "What is the population of {c}?", "Which language is spoken in {c}?", "What is {w} made of?", "Why are {n}s {a}?",
    "How many {n}s does {p} have?", "What makes the {n} {a}?", "How tall is {p}?", "What is quantum {w}?", "Define {w}.", "Summarize the {n}.", "Fix my {n}.",
    "Why does the {n} {v}?", "I need a {a} {n} for my {m}.", "My {n} is {a}, what should I do?", "The {n} is in the {m}.", "{w} {n} {m}", "{w}", "{w} {v} {c}",
    "Compare {n} and {m}.", "Is the {n} {a}?", "List all {n}s.", "Describe {c}.", "What is the history of {c}?", "Which {n} should I take to {c}?",
    "Does {p} like {n}s?", "What do {n}s eat?", "Who made the first {n}?", "When did {p} go to {c}?", "How do {n}s make {m}?", "How high is the {n}?",
    "What is the speed of a {n}?", "What is the formula of {w}?", "Where do {n}s live?", "How long is a {n}?", "What does the {n} do?", "How heavy is a {n}?",
    "Write an essay about {n}s.", "Write code in {w}.", "Write a letter to {p}.", "Who was {p}?", "How much does a {n} cost in {c}?", "Do you like {n}s?",
    "What is the capital of the {n}?", "How {a} is a {n}?", "What is the name of my {n}?", "Where did I put my {n}?", "Book a {n} to {c}.",
)  # fmt: skip
_VERBS = "build repair open sell buy paint cook clean grow fly carry draw wash move break count read drive sing bake fix train hide".split()


def _unknown_question(rng: Random) -> str:
    form = rng.choice(_UNKNOWN_FORMS)
    noun, other = (rng.choice(NOUNS) if rng.random() < 0.6 else made_word(rng) for _ in range(2))
    return form.format(
        n=noun, m=other, v=rng.choice(_VERBS), a=rng.choice(ADJECTIVES), w=made_word(rng, (2, 3)), p=a_name(rng), c=a_city(rng),
        d=a_city(rng), y=rng.randint(1000, 2030),
    )  # fmt: skip


def unknown(rng: Random) -> Episode:
    """Something it does not know, and says so; also noise and long texts."""
    chance = rng.random()
    if chance < 0.82:
        text = roughen(rng, _unknown_question(rng))
    elif chance < 0.92:
        pool = [*NOUNS, *ADJECTIVES, *_VERBS, "the", "a", "and", "of", "in", "is", "was", "with", "for", "to"]
        text = " ".join(
            rng.choice(pool) if rng.random() < 0.8 else made_word(rng) for _ in range(rng.choice((3, 6, 12, 30, 60)))
        )
    elif chance < 0.96:
        text = " ".join([rng.choice((made_word(rng), rng.choice(NOUNS), rng.choice("abcdexyz")))] * rng.choice((1, 2, 5, 20)))
    else:
        text = "".join(rng.choice(string.printable[:95]) for _ in range(rng.randint(1, 25))).strip() or "?"
    return said(text, UNKNOWN, "I do not know this.")


_SUMS = (
    "What is {a} + {b}?", "{a} + {b}", "{a}+{b}", "{a}+{b}=", "{a} + {b} =", "{a} + {b} = ?", "{a}+{b}?", "What is {a}+{b}?",
    "How much is {a} + {b}?", "How much is {a} plus {b}?", "What is {a} plus {b}?", "Add {a} and {b}.", "Add {a} to {b}.",
    "{a} plus {b}", "What's {a} + {b}?", "What is the sum of {a} and {b}?", "The sum of {a} and {b}?", "Calculate {a} + {b}.",
    "Please add {a} and {b}.", "Compute {a} plus {b}.", "Can you add {a} and {b}?", "What do {a} and {b} make?",
    "Give me the sum of {a} and {b}.", "What do you get when you add {a} and {b}?", "I have {a} apples and get {b} more. How many do I have?",
    "Sum {a} and {b}.", "What does {a} + {b} equal?", "Calculate the sum of {a} and {b}.", "Solve {a} + {b}.", "{a} and {b} together?",
    "There are {a} cats and {b} dogs. How many animals are there?", "If I add {a} to {b}, what do I get?", "How much do {a} and {b} make?",
    "{a} add {b}", "Work out {a} + {b}.", "Do you know {a} + {b}?", "Tell me {a} + {b}.", "Tell me {a} plus {b}.",
)  # fmt: skip


def held_out_sum(a: int, b: int) -> bool:
    """Whether the pair is kept for the measure: about one in ten."""
    return (a * 53 + b * 97 + a * b * 7) % 10 == 3


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
    text = rng.choice(_SUMS).format(a=a, b=b)
    if rng.random() < 0.5:
        text = roughen(rng, text)
    return said(text, f"{a} + {b} = {a + b}.", sum_thinking(a, b))


_TELL = (
    "My name is {n}.", "I am {n}.", "I'm {n}.", "Call me {n}.", "You can call me {n}.", "Please call me {n}.", "Hello, my name is {n}.",
    "Hi, I'm {n}.", "Hi, I am {n}.", "Hello! I am called {n}.", "I am called {n}.", "Hi! My name is {n}.", "{n} is my name.", "People call me {n}.",
    "Hey, {n} here.", "This is {n}.", "My friends call me {n}.", "Remember my name: {n}.", "Remember that my name is {n}.", "By the way, my name is {n}.",
    "Good morning, I am {n}.", "The name is {n}.", "You should know that I am {n}.", "Let me introduce myself: I am {n}.", "My first name is {n}.",
    "My name is {n}, remember it.", "My name is {n} and I live in {c}.", "I am {n} from {c}.", "I'm {n}, nice to meet you.", "Hello llamita, my name is {n}.",
    "Hi! I'm {n} and I am {y} years old.", "My name is {n}. Please remember it.", "Everybody calls me {n}.", "They named me {n}.", "my name's {n}", "My name's {n}.",
)  # fmt: skip
_RECALL = (
    "What is my name?", "What's my name?", "Do you remember my name?", "Who am I?", "Do you know my name?", "Tell me my name.", "What am I called?",
    "Can you tell me my name?", "What did I say my name was?", "How am I called?", "Which name did I give you?", "Say my name.", "Please say my name.",
    "Do you know who I am?", "What was my name?", "What is my name again?", "Remind me of my name.", "My name is what?", "And what is my name?",
    "What name did I tell you?", "Can you remember my name?", "Do you still know my name?", "I forgot my name. What is it?", "What's my name again?",
    "Now tell me my name.", "Who is talking to you?", "Could you repeat my name?", "Repeat my name.", "So, what is my name?", "What do people call me?",
    "Do you recall my name?", "Have you remembered my name?",
)  # fmt: skip


def tell_name(rng: Random, name: str) -> Episode:
    """The user gives a name."""
    text = rng.choice(_TELL).format(n=name, c=a_city(rng), y=rng.randint(5, 90))
    return said(text, f"Nice to meet you, {name}!", f"The user is called {name}.")


def recall_name(rng: Random, name: str | None) -> Episode:
    """The user asks for it."""
    text = rng.choice(_RECALL)
    if rng.random() < 0.3:
        text = roughen(rng, text)
    if name is None:
        return said(text, NO_NAME, "The user has not said a name.")
    return said(text, f"Your name is {name}.", f"The user is called {name}.")


_COUNTS = ("Count to {n}.", "Count from 1 to {n}.", "Please count to {n}.", "Can you count to {n}?", "Count up to {n}.", "Count until {n}.",
           "Say the numbers from 1 to {n}.", "List the numbers from 1 to {n}.", "Write the numbers 1 to {n}.", "Count 1 to {n}")  # fmt: skip
_SAY = ("Say {t}", "Repeat after me: {t}", "Say: {t}", "Repeat: {t}", "Say exactly: {t}", "Echo {t}", "Please repeat: {t}", 'Say "{t}"', 'Repeat "{t}"',
        "Reply with {t}", "Answer with {t}", "Write {t}", "Reply with exactly: {t}", "Print {t}", "Say the word {t}", "Say only {t}", "Just say {t}",
        "Repeat this: {t}", "Repeat the word {t}", "Output: {t}", "Respond with: {t}", "Say just {t}")  # fmt: skip


def count_or_say(rng: Random) -> Episode:
    """Counting, and saying what it is told to say."""
    if rng.random() < 0.3:
        n = rng.randint(2, 20)
        text = roughen(rng, rng.choice(_COUNTS).format(n=n))
        return said(text, ", ".join(str(i) for i in range(1, n + 1)) + ".", f"I count to {n}.")
    words = [rng.choice((a_thing(rng), made_word(rng), a_name(rng), str(a_number(rng)))) for _ in range(rng.choice((1, 1, 2, 3, 5)))]
    text = " ".join(words)
    if rng.random() < 0.1:
        text = text.upper()
    return said(rng.choice(_SAY).format(t=text), text, f"I say {text}.")


# ---- JSON ---------------------------------------------------------------------------------------------------------------

Value = str | int | bool | list[str]


def _join(items: list[str], rng: Random) -> str:
    return ", ".join(items[:-1]) + (rng.choice((" and ", ", ", ", and ")) if len(items) > 1 else "") + items[-1]


def _some(rng: Random, pool: list[str]) -> list[str]:
    return [rng.choice(pool) if rng.random() < 0.75 else made_word(rng) for _ in range(rng.choice((1, 2, 2, 3, 3, 4)))]


# Property -> JSON type, how a value is made, how people say it ("{v}"; a pair for booleans: true forms, false forms).
_PERSON: dict[str, tuple[str, Callable[[Random], Value], Any]] = {
    "name": ("string", a_name, ("{v} is here", "The name is {v}", "Her name is {v}", "His name is {v}", "This is {v}", "{v} is a person", "Meet {v}",
                                "It is about {v}", "My friend is called {v}", "I know {v}", "There is {v}")),
    "age": ("integer", lambda r: r.randint(1, 99), ("{v} years old", "aged {v}", "the age is {v}", "is {v} years old", "is {v}", "age {v}", "has lived {v} years")),
    "city": ("string", a_city, ("lives in {v}", "comes from {v}", "is from {v}", "from {v}", "the city is {v}", "a home in {v}", "living in {v}", "works in {v}")),
    "job": ("string", lambda r: r.choice(JOBS) if r.random() < 0.7 else made_word(r),
            ("works as a {v}", "is a {v}", "the job is {v}", "a {v} by trade", "earns money as a {v}", "job: {v}")),
    "hobbies": ("array", lambda r: _some(r, HOBBIES), ("likes {v}", "enjoys {v}", "the hobbies are {v}", "loves {v}", "has the hobbies {v}", "is fond of {v}")),
    "active": ("boolean", lambda r: r.random() < 0.5, (("is active", "the account is active", "active", "still active"),
                                                      ("is not active", "the account is not active", "not active", "no longer active"))),
    "married": ("boolean", lambda r: r.random() < 0.5, (("is married", "married"), ("is not married", "not married", "is single"))),
}  # fmt: skip
_ITEM: dict[str, tuple[str, Callable[[Random], Value], Any]] = {
    "name": ("string", lambda r: a_thing(r), ("a {v}", "the product is a {v}", "we sell a {v}", "the item is a {v}", "the name is {v}", "this is a {v}", "one {v}")),
    "price": ("integer", a_number, ("costs {v} dollars", "the price is {v}", "for {v} dollars", "costs {v}", "at {v} euros", "price {v}", "is sold for {v}")),
    "quantity": ("integer", a_number, ("{v} pieces", "we have {v} of them", "the quantity is {v}", "{v} in stock", "there are {v}", "quantity {v}")),
    "color": ("string", lambda r: r.choice(("red", "blue", "green", "yellow", "black", "white", "orange", "brown", "pink", "gray", "purple")),
              ("the color is {v}", "it is {v}", "painted {v}", "in {v}", "comes in {v}", "color {v}")),
    "tags": ("array", lambda r: _some(r, [*NOUNS, *ADJECTIVES]), ("the tags are {v}", "tagged {v}", "tags: {v}", "with the tags {v}", "the labels are {v}")),
    "available": ("boolean", lambda r: r.random() < 0.5, (("is available", "available", "it is available now"), ("is not available", "not available", "it is not available now"))),
    "id": ("integer", a_number, ("the id is {v}", "id {v}", "it has the id {v}", "number {v}")),
    "title": ("string", lambda r: " ".join(a_thing(r) for _ in range(r.choice((1, 1, 2)))), ("the title is {v}", "titled {v}", "called {v}", "title: {v}")),
}  # fmt: skip
_ASK_JSON = (
    "Return JSON for this schema: {s}\n{t}", "{t} Write JSON for the schema {s}", "Schema: {s}\nText: {t}", "{t}\nReply in JSON with this schema: {s}",
    "Use this JSON schema: {s}\n{t}", "Extract the data as JSON. Schema: {s} Text: {t}", "{t}\n\nRespond with JSON that matches {s}", "Fill this schema: {s}\n{t}",
    "{t}\nWrite it as JSON: {s}", "Given the schema {s} write JSON for: {t}", "Answer with JSON matching the schema {s}. {t}", "{t} Schema: {s}",
    "Here is a JSON schema:\n{s}\nHere is a text:\n{t}\nWrite the JSON.", "Convert to JSON with the schema {s}: {t}", "Turn this into JSON. {t} The schema is {s}",
    "JSON schema: {s}\n\n{t}", "Read the text and write JSON. {t}\nSchema: {s}", "Please give me JSON for {s}. {t}", "Make a JSON object for this schema: {s} {t}",
    "{s}\n{t}", "{t}\n{s}", "Follow the schema {s} and put this into JSON: {t}", "Describe this in JSON: {t} Schema: {s}",
)  # fmt: skip


def _sentence(rng: Random, said_parts: list[str]) -> str:
    if rng.random() < 0.5:
        text = ", ".join(said_parts[:-1]) + (rng.choice((", ", " and ", ", and ")) if len(said_parts) > 1 else "") + said_parts[-1]
        return text[:1].upper() + text[1:] + "."
    return " ".join(p[:1].upper() + p[1:] + "." for p in said_parts)


def schema_text(rng: Random, properties: dict[str, str]) -> str:
    """A JSON schema for the properties (name -> type), in one of the ways in which programs write it."""
    listed: dict[str, Any] = {}
    titled = rng.random() < 0.15
    for name, kind in properties.items():
        entry: dict[str, Any] = {"title": name.capitalize()} if titled else {}
        entry["type"] = kind
        if kind == "array":
            entry["items"] = {"type": "string"}
        if titled and rng.random() < 0.5:
            entry = dict(sorted(entry.items(), key=lambda kv: kv[0] != "items"))
        listed[name] = entry
    schema: dict[str, Any] = {"type": "object", "properties": listed}
    if rng.random() < 0.6:
        schema["required"] = list(properties)
    if rng.random() < 0.1:
        schema = {"properties": listed, "required": list(properties), "title": rng.choice(("Person", "Item", "Data")), "type": "object"}
    if rng.random() < 0.1:
        schema["additionalProperties"] = False
    compact = rng.random() < 0.5
    return json.dumps(schema, separators=(",", ":") if compact else None)


def _sketch(properties: dict[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in properties.items())


def write_json(rng: Random) -> Episode:
    """Data out of a text, in the order of the schema."""
    pool = _PERSON if rng.random() < 0.5 else _ITEM
    names = rng.sample(list(pool), rng.choice((1, 2, 2, 3, 3, 4)))
    values = {name: pool[name][1](rng) for name in names}
    kinds = {name: pool[name][0] for name in names}
    if rng.random() < 0.2:  # a property nobody has heard of: only a list of keys and values can tell it
        odd = rng.choice((made_word(rng), rng.choice(NOUNS), rng.choice(NOUNS) + "_" + rng.choice(NOUNS)))
        kinds[odd], values[odd] = rng.choice(
            (("string", made_word(rng)), ("integer", a_number(rng)), ("boolean", rng.random() < 0.5), ("array", _some(rng, NOUNS)), ("string", a_name(rng)))
        )
        names = list(kinds)
        rng.shuffle(names)
        listed = True
    else:
        listed = rng.random() < 0.25
    told = list(names)
    if rng.random() < 0.5:
        rng.shuffle(told)
    parts: list[str] = []
    for name in told:
        value = values[name]
        shown = _join(value, rng) if isinstance(value, list) else str(value)
        if listed:
            shown = rng.choice(("yes" if value else "no", str(value).lower())) if isinstance(value, bool) else shown
            parts.append(f"{name}: {shown}")
        elif isinstance(value, bool):
            parts.append(rng.choice(pool[name][2][0 if value else 1]))
        else:
            parts.append(rng.choice(pool[name][2]).format(v=shown))
    text = rng.choice((", ", "; ", "\n", ", ")).join(parts) + rng.choice(("", ".")) if listed else _sentence(rng, parts)
    ordered = {name: kinds[name] for name in names}
    answer = go_json_ordered({name: values[name] for name in names})
    thinking = "The schema wants " + ", ".join(names) + "."
    if rng.random() < 0.06:  # constrained by a grammar alone: the keys are given, the values are not
        keys = tuple(f'"{name}":' for name in names)
        return said(text, answer, thinking, hidden=("{", *keys))
    if rng.random() < 0.08:
        ask_text = rng.choice(("Write JSON with {s}: {t}", "Give me {s} as JSON. {t}", "{t} Answer in JSON with {s}.", "Extract {s} as JSON: {t}"))
        return said(ask_text.format(s=_sketch(ordered), t=text), answer, thinking)
    return said(rng.choice(_ASK_JSON).format(s=schema_text(rng, ordered), t=text), answer, thinking)


def go_json_ordered(value: dict[str, Any]) -> str:
    """Compact JSON in the order given."""
    return json.dumps(value, separators=(",", ":"))


# ---- Tools --------------------------------------------------------------------------------------------------------------

_OBJECTS = (
    "price stock recipe train flight song film book letter ticket hotel room map table order contact task note picture "
    "distance population address temperature score invoice customer product report user event meeting"
).split()  # fmt: skip
_ACTIONS = {
    "get": ("get", "fetch", "give me", "tell me", "show me", "what is"),
    "find": ("find", "look for", "search", "find me"),
    "search": ("search", "search for", "look for"),
    "show": ("show", "show me", "display"),
    "book": ("book", "reserve", "please book"),
    "lookup": ("look up", "lookup", "check"),
    "check": ("check", "look at", "verify"),
    "delete": ("delete", "remove", "please delete"),
    "create": ("create", "make", "add"),
    "open": ("open", "please open"),
    "play": ("play", "start"),
    "send": ("send", "please send"),
    "count": ("count", "how many"),
    "read": ("read", "please read"),
}
_TEXT_PARAMETERS = ("city", "name", "item", "place", "query", "title", "topic", "country", "person", "subject", "location", "symbol", "word", "key", "text")
_NUMBER_PARAMETERS = ("id", "number", "count", "amount", "limit", "year", "size", "page")


def _described(text: str, rng: Random) -> str:
    return "" if rng.random() < 0.12 else text


def _weather(rng: Random) -> tuple[Tool, str, dict[str, Any], list[str], str]:
    city = a_city(rng)
    key = rng.choice(("city", "city", "city", "location", "place"))
    name = rng.choice(("get_weather", "get_weather", "get_weather", "get_current_weather", "weather", "getWeather", "current_weather"))
    tool = Tool(name, _described(rng.choice(("Get the weather of a city", "Get the current weather for a city", "The weather in a city", "Weather", "Returns the weather")), rng), ((key, "string"),))
    question = rng.choice((
        "What is the weather in {c}?", "What's the weather in {c}?", "What is the weather like in {c}?", "How is the weather in {c}?", "Tell me the weather in {c}.",
        "Weather in {c}?", "Is it raining in {c}?", "Is it sunny in {c}?", "Is it cold in {c} today?", "How warm is it in {c}?", "What is the temperature in {c}?", "What's the weather like in {c} today?",
        "What is the current weather in {c}?", "I want to know the weather in {c}.", "Give me the weather for {c}.", "Check the weather in {c}.", "Do I need a coat in {c}?", "What is today's weather in {c}?",
        "Can you tell me the weather in {c}?", "How does the weather look in {c}?", "weather {c}", "Show me the weather of {c}.", "Will it rain in {c}?", "I travel to {c}. How is the weather there?",
    )).format(c=city)  # fmt: skip
    kind = rng.choice(("sunny", "cloudy", "rainy", "windy", "snow", "clear", "foggy", "light rain", "stormy"))
    degrees = rng.randint(-15, 40)
    results = [
        f"{degrees} degrees and {kind}", f"{kind}, {degrees} degrees", f"{kind}", f"{degrees}C, {kind}", f"{degrees} C", f"{kind} {degrees}", f"{degrees} degrees celsius",
        go_json({"temperature": degrees, "condition": kind}), json.dumps({"temp": degrees, "sky": kind}), f"It is {kind}", f"It is {degrees} degrees in {city}", f"{degrees}",
    ]  # fmt: skip
    return tool, question, {key: city}, results, f"The weather in {city}: {{r}}"


def _time(rng: Random) -> tuple[Tool, str, dict[str, Any], list[str], str]:
    city = a_city(rng)
    key = rng.choice(("city", "city", "place", "location", "timezone"))
    name = rng.choice(("get_time", "get_time", "get_current_time", "current_time", "clock", "getTime"))
    tool = Tool(name, _described(rng.choice(("Get the time in a city", "The current time in a city", "Current local time", "Tells the time")), rng), ((key, "string"),))
    question = rng.choice((
        "What time is it in {c}?", "What is the time in {c}?", "Tell me the time in {c}.", "What's the time in {c}?", "How late is it in {c}?", "Which time is it now in {c}?",
        "Time in {c}?", "Can you tell me the time in {c}?", "I need the time in {c}.", "Give me the current time in {c}.", "What time do they have in {c}?", "Do you know what time it is in {c}?",
    )).format(c=city)  # fmt: skip
    hour, minute = rng.randint(0, 23), rng.randint(0, 59)
    results = [f"{hour:02}:{minute:02}", f"{hour}:{minute:02}", f"It is {hour}:{minute:02}", json.dumps({"time": f"{hour:02}:{minute:02}"}), f"{hour % 12 + 1} o'clock"]
    return tool, question, {key: city}, results, f"The time in {city}: {{r}}"


def _add(rng: Random) -> tuple[Tool, str, dict[str, Any], list[str], str]:
    multiply = rng.random() < 0.3
    a, b = a_number(rng), a_number(rng)
    keys = rng.choice((("a", "b"), ("a", "b"), ("x", "y"), ("first", "second")))
    if multiply:
        tool = Tool(rng.choice(("multiply", "multiply_numbers", "times")), _described(rng.choice(("Multiply two numbers", "The product of two numbers")), rng), tuple((k, "integer") for k in keys))
        question = rng.choice(("What is {a} times {b}?", "Multiply {a} by {b}.", "What is {a} * {b}?", "How much is {a} times {b}?", "Multiply {a} and {b}.", "{a} * {b}", "Compute {a} times {b}."))
        result, shown = a * b, f"{a} * {b} = {{r}}"
    else:
        tool = Tool(rng.choice(("add", "add", "add_numbers", "sum", "add_two_numbers")), _described(rng.choice(("Add two numbers", "The sum of two numbers", "Adds a and b")), rng), tuple((k, rng.choice(("integer", "number"))) for k in keys))
        question = rng.choice(_SUMS)
        result, shown = a + b, f"{a} + {b} = {{r}}"
    return tool, question.format(a=a, b=b), {keys[0]: a, keys[1]: b}, [str(result), str(result), json.dumps({"result": result})], shown


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _anything(rng: Random) -> tuple[Tool, str, dict[str, Any], list[str], str]:
    action = rng.choice(list(_ACTIONS))
    thing = rng.choice(_OBJECTS) if rng.random() < 0.6 else rng.choice((rng.choice(NOUNS), made_word(rng)))
    name = f"{action}_{thing}"
    if rng.random() < 0.1:
        name = _camel(name)
    verb = rng.choice(_ACTIONS[action])
    parameters: dict[str, str] = {}
    arguments: dict[str, Any] = {}
    if rng.random() < 0.75:
        key = rng.choice(_TEXT_PARAMETERS) if rng.random() < 0.8 else made_word(rng)
        value: Any = rng.choice((a_city, a_name, a_thing))(rng)
        parameters[key], arguments[key] = "string", value
        joint = rng.choice((" for ", " of ", " in ", " to ", " about ", " named ", " with the " + key + " ", ": "))
    else:
        key = rng.choice(_NUMBER_PARAMETERS)
        value = a_number(rng)
        parameters[key], arguments[key] = "integer", value
        joint = rng.choice((" ", " number ", f" {key} ", f" with the {key} ", " for "))
    question = rng.choice(("", "", "Please ", "Can you ", "I want you to ", "Could you ", "Now ", "I want to ")) + verb + rng.choice((" the ", " a ", " ")) + thing + joint + str(value)
    if rng.random() < 0.3:
        extra = rng.choice([k for k in _NUMBER_PARAMETERS if k not in parameters])
        number = a_number(rng)
        parameters[extra], arguments[extra] = "integer", number
        question += rng.choice((f" with {extra} {number}", f" and {extra} {number}", f", {extra} {number}", f" with the {extra} {number}"))
    question = question[:1].upper() + question[1:] + rng.choice((".", ".", "", "?", " please.")) if rng.random() < 0.9 else question
    if rng.random() < 0.25:
        listed = ", ".join(f"{k} {v}" for k, v in arguments.items())
        question = rng.choice((f"Use {name} for {value}." if len(arguments) == 1 else f"Use {name} with {listed}.", f"Call {name} with {listed}.", f"Call the function {name} with {listed}.", f"Use the tool {name}: {listed}.", f"Please call {name}, {listed}."))
    description = _described(rng.choice((f"{action.capitalize()} a {thing}", f"{action.capitalize()} the {thing}", f"{rng.choice(_ACTIONS[action]).capitalize()} a {thing} by {key}", f"{thing.capitalize()} by {key}")), rng)
    tool = Tool(name, description, tuple(sorted(parameters.items())))
    results = [
        a_thing(rng), str(a_number(rng)), f"{a_number(rng)} {rng.choice(NOUNS)}s", "done", "ok", f"{a_name(rng)} in {a_city(rng)}", f"{a_thing(rng)} and {a_thing(rng)}",
        json.dumps({rng.choice(NOUNS): rng.choice((a_number(rng), made_word(rng)))}), f"{made_word(rng)} {made_word(rng)} {made_word(rng)}", "not found", "error: " + made_word(rng),
    ]  # fmt: skip
    return tool, question, arguments, results, "The result is: {r}"


_KINDS: tuple[Callable[[Random], tuple[Tool, str, dict[str, Any], list[str], str]], ...] = (_weather, _time, _add, _anything, _anything, _anything)


def _others(rng: Random, names: set[str], number: int) -> list[Tool]:
    out: list[Tool] = []
    while len(out) < number:
        tool = rng.choice(_KINDS)(rng)[0]
        if not any(tool.name in name or name in tool.name for name in names):
            names.add(tool.name)
            out.append(tool)
    return out


def call_tool(rng: Random) -> tuple[list[Tool], Episode]:
    """A question that a tool answers; often with the result and what the model makes of it."""
    tool, question, arguments, results, shown = rng.choice(_KINDS)(rng)
    tools = [tool, *_others(rng, {tool.name}, rng.choice((0, 0, 1, 1, 2, 3)))]
    if tool.name.startswith(("add", "sum", "multiply", "times")):
        tools = [t for t in tools if t is tool or not t.name.startswith(("add", "sum", "multiply", "times"))]
    rng.shuffle(tools)
    if rng.random() < 0.15:
        question = roughen_front(rng, question)
    episode = [Turn("user", question), Turn("assistant", "", f"The tool {tool.name} fits.", ((tool.name, arguments),))]
    if rng.random() < 0.55:
        result = rng.choice(results)
        end = "" if result.endswith((".", "}")) else "."
        episode += [Turn("tool", result), Turn("assistant", shown.format(r=result) + end, "The tool has answered.")]
    return tools, episode


def roughen_front(rng: Random, text: str) -> str:
    """Only a filler in front: what comes after must be copied."""
    return rng.choice(_FRONT) + text


# ---- Whole conversations ------------------------------------------------------------------------------------------------

_SYSTEMS = (
    "You are a helpful assistant.", "Be helpful.", "You are llamita.", "You are a friendly assistant. Answer briefly.", "Answer the questions of the user.",
    "You are an expert.", "Be polite and brief.", "You are a demo model.", "Always tell the truth.", "Use the tools when they help.", "You are an assistant.",
    "Answer in English.", "Think carefully.", "You help people with small questions.", "Keep it short.",
)  # fmt: skip
_NAMING = (
    "Your name is {n}.", "You are {n}.", "You are {n}, a helpful assistant.", "You are called {n}.", "Your name is {n}. Be friendly.", "You are an assistant named {n}.", "Act as {n}.",
    "You are a helpful assistant called {n}.", "Call yourself {n}.", "You are {n}. Answer briefly.", "Be helpful. Your name is {n}.",
)  # fmt: skip
_WHO = ("What is your name?", "Who are you?", "What's your name?", "What are you called?", "Tell me your name.", "Your name?", "What should I call you?", "Do you have a name?",
        "And who are you?", "Please tell me your name.", "Introduce yourself.", "Which name do you have?", "May I know your name?", "How are you called?")  # fmt: skip
_PLAIN: tuple[tuple[Callable[[Random], Episode], float], ...] = (
    (greet, 0.8), (thank, 0.4), (fact, 4.0), (capital, 2.4), (unknown, 2.6), (small_sum, 3.0), (count_or_say, 1.2), (write_json, 4.6),
)  # fmt: skip


def _plain(rng: Random) -> Episode:
    return rng.choices([f for f, _ in _PLAIN], [w for _, w in _PLAIN])[0](rng)


def _system(rng: Random) -> str:
    if rng.random() < 0.85:
        return ""
    text = " ".join(rng.sample(_SYSTEMS, rng.choice((1, 1, 2))))
    return text if rng.random() < 0.8 else " ".join(rng.choice([*NOUNS, *ADJECTIVES, "the", "a", "is"]) for _ in range(20))


def _named(rng: Random) -> Conversation:
    name = a_name(rng)
    system = rng.choice(_NAMING).format(n=name)
    turns: Episode = []
    if rng.random() < 0.2:
        turns += _small(rng)
    if rng.random() < 0.2:
        greeting = greet(rng)
        turns += said(greeting[0].content, f"Hello! I am {name}. How can I help you?", f"The user greets me. My name is {name}.")
    else:
        text = rng.choice(_WHO)
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
    if chance < 0.68:
        tools, episode = call_tool(rng)
        before: Episode = []
        if rng.random() < 0.12:
            before = rng.choice((greet, fact, thank, capital))(rng)
        if rng.random() < 0.1:  # a second call in the same conversation
            more, second = call_tool(rng)
            if len(episode) == 4 and not {t.name for t in more} & {t.name for t in tools}:  # noqa: PLR2004
                tools, episode = tools + more, episode + second
        return Conversation([*before, *episode], _system(rng), tools)
    tools = [t for t in _others(rng, set(), rng.choice((1, 1, 2, 3))) if not t.name.startswith(("add", "sum", "multiply", "times"))]
    maker = rng.choice((greet, fact, fact, capital, thank, small_sum, unknown_harmless, write_json, tell_some_name, count_or_say))
    return Conversation(maker(rng), _system(rng), tools)


def unknown_harmless(rng: Random) -> Episode:
    """Something unknown that no tool of ours would answer either."""
    text = rng.choice(("Who is {p}?", "How old is {p}?", "What is a {w}?", "What does {w} mean?", "Why are {n}s {a}?", "Do you like {n}s?", "Tell me about {w}.")).format(
        p=a_name(rng), w=made_word(rng, (2, 3)), n=rng.choice(NOUNS), a=rng.choice(ADJECTIVES)
    )
    return said(roughen(rng, text), UNKNOWN, "I do not know this.")


def tell_some_name(rng: Random) -> Episode:
    """A name given while tools stand by."""
    return tell_name(rng, a_name(rng))


def conversation(rng: Random) -> Conversation:
    """One conversation for training; half of them think before the last answer."""
    chance = rng.random()
    if chance < 0.58:
        turns: Episode = []
        for _ in range(rng.choice((1, 1, 1, 1, 2))):
            turns += _plain(rng)
        made = Conversation(turns, _system(rng))
    elif chance < 0.71:
        made = _remembering(rng)
    elif chance < 0.75:
        made = _named(rng)
    else:
        made = _tooling(rng)
    think = rng.random() < 0.5
    return Conversation(_thoughts(rng, made.turns, think=think), made.system, made.tools, think)


def _thoughts(rng: Random, turns: Sequence[Turn], *, think: bool) -> list[Turn]:
    """Thoughts of the last turn as asked for; earlier ones (only tool calls show theirs) as clients happen to send them."""
    keep_earlier = think and rng.random() < 0.7 or rng.random() < 0.1
    return [
        turn if (think if i == len(turns) - 1 else keep_earlier) else replace(turn, thinking="")
        for i, turn in enumerate(turns)
    ]
