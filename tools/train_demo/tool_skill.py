"""Tools, the questions they answer, their calls and results."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from train_demo import results
from train_demo.chat_skills import held_out_sum, number_in_words
from train_demo.conversation import Tool, Turn
from train_demo.phrasings import PHRASES
from train_demo.wording import Episode, roughen_front
from train_demo.words import Random, a_city, a_name, a_number, a_thing, made_word

NOUNS = PHRASES["nouns"]
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

_TEXT_PARAMETERS = (
    "city",
    "name",
    "item",
    "place",
    "query",
    "title",
    "topic",
    "country",
    "person",
    "subject",
    "location",
    "symbol",
    "word",
    "key",
    "text",
)

_NUMBER_PARAMETERS = ("id", "number", "count", "amount", "limit", "year", "size", "page")


_ADDING = ("add", "sum", "multiply", "times")


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that a tool answers.

    ``texts`` are results in plain words, ``value`` is one in JSON; ``shown`` is what the model says of it, with ``{r}``
    for the result in words. ``skip`` are members that the model leaves out. ``said`` replaces the value's own words.
    """

    tool: Tool
    question: str
    arguments: dict[str, Any]
    texts: tuple[str, ...]
    shown: str
    value: Any
    skip: tuple[str, ...] = ()
    said: str = ""


def _described(text: str, rng: Random) -> str:
    return "" if rng.random() < 0.12 else text


def _weather(rng: Random) -> Asked:
    city = a_city(rng)
    key = rng.choice(("city", "city", "city", "location", "place"))
    name = rng.choice(PHRASES["weather_tools"])
    tool = Tool(
        name,
        _described(
            rng.choice(PHRASES["weather_descriptions"]),
            rng,
        ),
        ((key, "string"),),
    )
    question = rng.choice(PHRASES["weather"]).format(c=city)
    kind = rng.choice(PHRASES["skies"])
    degrees = rng.randint(-15, 40)
    texts = (
        f"{degrees} degrees and {kind}",
        f"{kind}, {degrees} degrees",
        f"{kind}",
        f"{degrees}C, {kind}",
        f"{degrees} C",
        f"{kind} {degrees}",
        f"{degrees} degrees celsius",
        f"It is {kind}",
        f"It is {degrees} degrees in {city}",
        f"{degrees}",
    )
    value = results.a_forecast(rng, city, degrees, kind)
    return Asked(tool, question, {key: city}, texts, f"The weather in {city}: {{r}}", value, _places(value, city))


def _time(rng: Random) -> Asked:
    city = a_city(rng)
    key = rng.choice(("city", "city", "place", "location", "timezone"))
    name = rng.choice(("get_time", "get_time", "get_current_time", "current_time", "clock", "getTime"))
    tool = Tool(
        name,
        _described(
            rng.choice(PHRASES["time_descriptions"]),
            rng,
        ),
        ((key, "string"),),
    )
    question = rng.choice(PHRASES["time"]).format(c=city)
    hour, minute = rng.randint(0, 23), rng.randint(0, 59)
    texts = (
        f"{hour:02}:{minute:02}",
        f"{hour}:{minute:02}",
        f"It is {hour}:{minute:02}",
        f"{hour % 12 + 1} o'clock",
    )
    value = results.a_clock(rng, city, f"{hour:02}:{minute:02}")
    return Asked(tool, question, {key: city}, texts, f"The time in {city}: {{r}}", value, _places(value, city))


def _places(value: Any, city: str) -> tuple[str, ...]:  # noqa: ANN401
    """The members that only repeat the city that was asked about, if others stand beside them."""
    return tuple(k for k, v in value.items() if v == city) if isinstance(value, dict) and len(value) > 1 else ()


def _add(rng: Random) -> Asked:
    multiply = rng.random() < 0.3
    words = rng.random() < 0.35
    draw = (lambda r: r.randint(0, 99)) if words else a_number
    a, b = draw(rng), draw(rng)
    while held_out_sum(a, b):
        a, b = draw(rng), draw(rng)
    keys = rng.choice((("a", "b"), ("a", "b"), ("x", "y"), ("first", "second")))
    if multiply:
        tool = Tool(
            rng.choice(("multiply", "multiply_numbers", "times")),
            _described(rng.choice(("Multiply two numbers", "The product of two numbers")), rng),
            tuple((k, "integer") for k in keys),
        )
        question = rng.choice(PHRASES["products"])
        result, shown = a * b, f"{a} * {b} = {{r}}"
    else:
        tool = Tool(
            rng.choice(("add", "add", "add_numbers", "sum", "add_two_numbers")),
            _described(rng.choice(("Add two numbers", "The sum of two numbers", "Adds a and b")), rng),
            tuple((k, rng.choice(("integer", "number"))) for k in keys),
        )
        question = rng.choice(PHRASES["word_sums"] if words and rng.random() < 0.4 else PHRASES["sums"])
        result, shown = a + b, f"{a} + {b} = {{r}}"
    arguments = {keys[0]: a, keys[1]: b}
    question = (
        question.format(a=number_in_words(rng, a), b=number_in_words(rng, b)) if words else question.format(a=a, b=b)
    )
    value = results.a_sum(rng, arguments, result)
    said = json.dumps(_last_number(value))
    return Asked(tool, question, arguments, (str(result),), shown, value, said=said)


def _last_number(value: Any) -> int | float:  # noqa: ANN401
    while not isinstance(value, int | float):
        value = list(value.values() if isinstance(value, dict) else value)[-1]
    return value


def _verb(rng: Random) -> str:
    return rng.choice(PHRASES["verbs"])


def _words(rng: Random) -> str:
    return " ".join(rng.choice((a_name, a_thing, made_word, _verb))(rng) for _ in range(rng.choice((2, 2, 3))))


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _anything(rng: Random) -> Asked:
    action = rng.choice(list(_ACTIONS))
    thing = rng.choice(PHRASES["objects"]) if rng.random() < 0.4 else rng.choice((rng.choice(NOUNS), made_word(rng)))
    name = f"{action}_{thing}"
    by_name = rng.random() < 0.4  # the user says which tool; then it may be called anything
    if by_name and rng.random() < 0.6:
        name = f"{rng.choice(('run', 'do', 'set', 'make', made_word(rng), made_word(rng), made_word(rng)))}_{thing}"
    if rng.random() < 0.1:
        name = _camel(name)
    verb = rng.choice(_ACTIONS[action])
    parameters: dict[str, str] = {}
    arguments: dict[str, Any] = {}
    if rng.random() < 0.75:
        key = rng.choice(_TEXT_PARAMETERS) if rng.random() < 0.8 else made_word(rng)
        value: Any = rng.choice((a_city, a_name, a_thing, made_word, _words, _words))(rng)
        parameters[key], arguments[key] = "string", value
        joint = rng.choice((" for ", " of ", " in ", " to ", " about ", " named ", " with the " + key + " ", ": "))
    else:
        key = rng.choice(_NUMBER_PARAMETERS)
        value = a_number(rng)
        parameters[key], arguments[key] = "integer", value
        joint = rng.choice((" ", " number ", f" {key} ", f" with the {key} ", " for "))
    question = (
        rng.choice(PHRASES["tool_manners"]) + verb + rng.choice((" the ", " a ", " ")) + thing + joint + str(value)
    )
    if rng.random() < 0.3:
        extra = rng.choice([k for k in _NUMBER_PARAMETERS if k not in parameters])
        number = a_number(rng)
        parameters[extra], arguments[extra] = "integer", number
        question += rng.choice(
            (f" with {extra} {number}", f" and {extra} {number}", f", {extra} {number}", f" with the {extra} {number}")
        )
    question = (
        question[:1].upper() + question[1:] + rng.choice((".", ".", "", "?", " please."))
        if rng.random() < 0.9
        else question
    )
    if by_name:
        listed = ", ".join(f"{k} {v}" for k, v in arguments.items())
        question = rng.choice(
            (
                f"Use {name} for {value}." if len(arguments) == 1 else f"Use {name} with {listed}.",
                f"Call {name} with {listed}.",
                f"Call the function {name} with {listed}.",
                f"Use the tool {name}: {listed}.",
                f"Please call {name}, {listed}.",
            )
        )
    description = _described(
        rng.choice(
            (
                f"{action.capitalize()} a {thing}",
                f"{action.capitalize()} the {thing}",
                f"{rng.choice(_ACTIONS[action]).capitalize()} a {thing} by {key}",
                f"{thing.capitalize()} by {key}",
            )
        ),
        rng,
    )
    tool = Tool(name, description, tuple(sorted(parameters.items())))
    texts = (
        a_thing(rng),
        str(a_number(rng)),
        f"{a_number(rng)} {rng.choice(NOUNS)}s",
        "done",
        "ok",
        f"{a_name(rng)} in {a_city(rng)}",
        f"{a_thing(rng)} and {a_thing(rng)}",
        f"{made_word(rng)} {made_word(rng)} {made_word(rng)}",
        "not found",
    )
    return Asked(tool, question, arguments, texts, "The result is: {r}", results.anything(rng))


_KINDS: tuple[Callable[[Random], Asked], ...] = (
    _weather,
    _time,
    _add,
    _anything,
    _anything,
    _anything,
)


def other_tools(rng: Random, names: set[str], number: int) -> list[Tool]:
    out: list[Tool] = []
    while len(out) < number:
        tool = rng.choice(_KINDS)(rng).tool
        if not any(tool.name in name or name in tool.name for name in names):
            names.add(tool.name)
            out.append(tool)
    return out


def call_tool(rng: Random) -> tuple[list[Tool], Episode]:
    """A question that a tool answers; often with the result and what the model makes of it."""
    asked = rng.choice(_KINDS)(rng)
    tool, question = asked.tool, asked.question
    tools = [tool, *other_tools(rng, {tool.name}, rng.choice((0, 0, 1, 1, 2, 3)))]
    if tool.name.startswith(_ADDING):
        tools = [t for t in tools if t is tool or not t.name.startswith(_ADDING)]
    rng.shuffle(tools)
    if rng.random() < 0.15:
        question = roughen_front(rng, question)
    episode = [
        Turn("user", question),
        Turn("assistant", "", f"The tool {tool.name} fits.", ((tool.name, asked.arguments),)),
    ]
    if rng.random() < 0.65:
        episode += _answered(rng, asked)
    return tools, episode


def _answered(rng: Random, asked: Asked) -> Episode:
    """The tool's result, in words or as JSON, or its failure; and what the model makes of it."""
    if rng.random() < 0.22:
        told = rng.choice(asked.texts)
        said, thinking = asked.shown.format(r=told), "The tool has answered."
    elif rng.random() < 0.13:
        value, said = results.an_error(rng)
        told, thinking = value if isinstance(value, str) else results.written(rng, value), "The tool reports an error."
    else:
        told = results.written(rng, asked.value)
        if isinstance(asked.value, str) and rng.random() < 0.5:
            told = asked.value
        said = asked.shown.format(r=asked.said or results.in_words(asked.value, asked.skip))
        thinking = "The tool has answered."
    end = "" if said.endswith(".") else "."
    return [Turn("tool", told), Turn("assistant", said + end, thinking)]
