"""Tools, the questions they answer, their calls and results."""

import json
from collections.abc import Callable
from typing import Any

from train_demo.chat_skills import held_out_sum
from train_demo.conversation import Tool, Turn, go_json
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


def _described(text: str, rng: Random) -> str:
    return "" if rng.random() < 0.12 else text


def _weather(rng: Random) -> tuple[Tool, str, dict[str, Any], list[str], str]:
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
    results = [
        f"{degrees} degrees and {kind}",
        f"{kind}, {degrees} degrees",
        f"{kind}",
        f"{degrees}C, {kind}",
        f"{degrees} C",
        f"{kind} {degrees}",
        f"{degrees} degrees celsius",
        go_json({"temperature": degrees, "condition": kind}),
        json.dumps({"temp": degrees, "sky": kind}),
        f"It is {kind}",
        f"It is {degrees} degrees in {city}",
        f"{degrees}",
    ]
    return tool, question, {key: city}, results, f"The weather in {city}: {{r}}"


def _time(rng: Random) -> tuple[Tool, str, dict[str, Any], list[str], str]:
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
    results = [
        f"{hour:02}:{minute:02}",
        f"{hour}:{minute:02}",
        f"It is {hour}:{minute:02}",
        json.dumps({"time": f"{hour:02}:{minute:02}"}),
        f"{hour % 12 + 1} o'clock",
    ]
    return tool, question, {key: city}, results, f"The time in {city}: {{r}}"


def _add(rng: Random) -> tuple[Tool, str, dict[str, Any], list[str], str]:
    multiply = rng.random() < 0.3
    a, b = a_number(rng), a_number(rng)
    while held_out_sum(a, b):
        a, b = a_number(rng), a_number(rng)
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
        question = rng.choice(PHRASES["sums"])
        result, shown = a + b, f"{a} + {b} = {{r}}"
    return (
        tool,
        question.format(a=a, b=b),
        {keys[0]: a, keys[1]: b},
        [str(result), str(result), json.dumps({"result": result})],
        shown,
    )


def _verb(rng: Random) -> str:
    return rng.choice(PHRASES["verbs"])


def _words(rng: Random) -> str:
    return " ".join(rng.choice((a_name, a_thing, made_word, _verb))(rng) for _ in range(rng.choice((2, 2, 3))))


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _anything(rng: Random) -> tuple[Tool, str, dict[str, Any], list[str], str]:
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
    results = [
        a_thing(rng),
        str(a_number(rng)),
        f"{a_number(rng)} {rng.choice(NOUNS)}s",
        "done",
        "ok",
        f"{a_name(rng)} in {a_city(rng)}",
        f"{a_thing(rng)} and {a_thing(rng)}",
        json.dumps({rng.choice(NOUNS): rng.choice((a_number(rng), made_word(rng)))}),
        f"{made_word(rng)} {made_word(rng)} {made_word(rng)}",
        "not found",
        "error: " + made_word(rng),
    ]
    return tool, question, arguments, results, "The result is: {r}"


_KINDS: tuple[Callable[[Random], tuple[Tool, str, dict[str, Any], list[str], str]], ...] = (
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
        tool = rng.choice(_KINDS)(rng)[0]
        if not any(tool.name in name or name in tool.name for name in names):
            names.add(tool.name)
            out.append(tool)
    return out


def call_tool(rng: Random) -> tuple[list[Tool], Episode]:
    """A question that a tool answers; often with the result and what the model makes of it."""
    tool, question, arguments, results, shown = rng.choice(_KINDS)(rng)
    tools = [tool, *other_tools(rng, {tool.name}, rng.choice((0, 0, 1, 1, 2, 3)))]
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
