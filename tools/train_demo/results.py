"""Tool results as JSON, in the notations in which tools return them, and how llamita says them in words.

An object becomes "key value, key value"; a list of plain values keeps its commas; objects in a list are set apart by
semicolons; what stands deeper goes into parentheses. Underscores become spaces, true and false become yes and no. A
``unit`` right after a number follows it without its key. An object whose only key says no more than that this is
the result (``result``, ``data``, ...) is said as its value.
"""

import json
from collections.abc import Sequence
from typing import Any

from train_demo.phrasings import PHRASES
from train_demo.words import REAL_WORDS, Random, a_city, a_name, a_number, a_thing, made_word

WRAPPERS = (
    "result",
    "data",
    "value",
    "output",
    "answer",
    "response",
    "results",
    "text",
    "content",
    "items",
    "weather",
    "current",
    "forecast",
    "time",
)
_MESSAGES = ("error", "message", "detail", "reason", "msg")


def in_words(value: Any, skip: Sequence[str] = ()) -> str:  # noqa: ANN401
    """Say a JSON value in words; keys in ``skip`` are left out at the top."""
    if isinstance(value, dict):
        if len(value) == 1 and next(iter(value)) in WRAPPERS:
            return in_words(next(iter(value.values())))
        return _object(value, skip)
    if isinstance(value, list):
        if any(isinstance(each, dict | list) for each in value):
            return "; ".join(in_words(each) for each in value)
        return ", ".join(_scalar(each) for each in value) or "nothing"
    return _scalar(value)


def _scalar(value: Any) -> str:  # noqa: ANN401
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value)


def _object(value: dict[str, Any], skip: Sequence[str]) -> str:
    parts: list[str] = []
    before: Any = None
    for key, inner in value.items():
        if key in skip:
            continue
        if key in {"unit", "units"} and isinstance(before, int | float) and parts:
            parts[-1] += f" {inner}"
        else:
            said = in_words(inner)
            deep = isinstance(inner, dict) or (isinstance(inner, list) and any(isinstance(e, dict) for e in inner))
            parts.append(f"{key.replace('_', ' ')} ({said})" if deep else f"{key.replace('_', ' ')} {said}")
        before = inner
    return ", ".join(parts) or "nothing"


def written(rng: Random, value: Any) -> str:  # noqa: ANN401
    """Write a JSON value as some tool would: spaced, compact, indented, or as Python prints it."""
    style = rng.choices(("spaced", "compact", "indented", "python"), (5, 4, 2.5, 1.5))[0]
    if style == "indented":
        return json.dumps(value, indent=rng.choice((2, 2, 4)), ensure_ascii=False)
    if style == "python":
        return repr(value)
    return json.dumps(value, separators=(",", ":") if style == "compact" else None, ensure_ascii=rng.random() < 0.3)


def number(rng: Random) -> int | float:
    """A number of a tool: whole, decimal, negative, now and then large."""
    chance = rng.random()
    if chance < 0.25:
        return round(rng.choice((1, 1, -1)) * rng.random() * rng.choice((1, 10, 100, 2000)), rng.choice((1, 1, 2)))
    if chance < 0.32:
        return -rng.randint(1, 60)
    if chance < 0.4:
        return rng.randint(10_000, 9_999_999)
    return a_number(rng)


def _date(rng: Random) -> str:
    day = f"{rng.randint(1990, 2035)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
    clock = f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}"
    return rng.choice((day, day, clock, f"{day} {clock}", f"{day}T{clock}:00Z"))


def _code(rng: Random) -> str:
    letters = "".join(rng.choice("ABCDEFGHJKLMNPRSTUVWXYZ") for _ in range(rng.randint(1, 3)))
    digits = rng.randint(1, 99999)
    return rng.choice(
        (f"{letters}{digits}", f"{letters}-{digits}", f"{letters.lower()}_{digits}", f"{digits}{letters}")
    )


def _sentence(rng: Random) -> str:
    """Words that stand in no order: copying them is all there is to learn."""
    makers = (a_thing, made_word, lambda r: r.choice(REAL_WORDS), lambda r: r.choice(REAL_WORDS))
    text = " ".join(rng.choice(makers)(rng) for _ in range(rng.choice((2, 3, 4, 6))))
    return text[:1].upper() + text[1:] if rng.random() < 0.6 else text


def _accented(rng: Random) -> str:
    return rng.choice(("Zürich", "Malmö", "São Paulo", "Köln", "Kraków", "Besançon", "Århus", "café", "José"))


def words(rng: Random) -> str:
    """A short text of a tool: a name, a place, a thing, a sentence, a date, a code."""
    return rng.choices(
        (
            a_name, a_city, a_thing, made_word, _sentence, _date, _code, _accented,
            lambda r: f"{made_word(r)}@{made_word(r)}.com", lambda r: f"https://{made_word(r)}.org/{made_word(r)}",
        ),
        (3, 3, 4, 3, 4, 1.5, 1, 0.3, 0.3, 0.3),
    )[0](rng)  # fmt: skip


def _key(rng: Random, kind: str) -> str:
    chance = rng.random()
    if chance < 0.62:
        return rng.choice(PHRASES[f"result_{kind}"])
    if chance < 0.76:
        return rng.choice(PHRASES["nouns"])
    if chance < 0.86:
        return made_word(rng)
    first = rng.choice((rng.choice(PHRASES["nouns"]), made_word(rng), rng.choice(PHRASES["adjectives"])))
    second = rng.choice((rng.choice(PHRASES[f"result_{kind}"]), made_word(rng)))
    return f"{first}_{second}" if rng.random() < 0.7 else first + second[:1].upper() + second[1:]


def _pair(rng: Random, depth: int) -> tuple[str, Any]:
    chance = rng.random()
    if depth and chance < 0.14:
        return _key(rng, "texts"), an_object(rng, depth - 1, rng.choice((1, 2, 2, 3)))
    if depth and chance < 0.2:
        return _key(rng, "texts") + "s", [an_object(rng, 0, 2) for _ in range(rng.choice((1, 2)))]
    if chance < 0.3:
        return _key(rng, "texts") + "s", a_list(rng)
    if chance < 0.38:
        return _key(rng, "flags"), rng.random() < 0.5
    if chance < 0.41:
        return _key(rng, "texts"), None
    if chance < 0.72:
        return _key(rng, "texts"), words(rng)
    return _key(rng, "numbers"), number(rng)


def an_object(rng: Random, depth: int, size: int) -> dict[str, Any]:
    """An object of ``size`` members, nested at most ``depth`` deep."""
    out = dict(_pair(rng, depth) for _ in range(size))
    numbers = [key for key, value in out.items() if isinstance(value, int | float) and not isinstance(value, bool)]
    if numbers and rng.random() < 0.2:
        at = rng.choice(numbers)
        unit = rng.choice(PHRASES["units"])
        out = {k: v for key, value in out.items() for k, v in ((key, value), *([("unit", unit)] if key == at else ()))}
    return out


def a_list(rng: Random) -> list[Any]:
    """A list of texts or of numbers."""
    maker = rng.choice((words, words, a_thing, a_name, number))
    return [maker(rng) for _ in range(rng.choice((0, 1, 2, 2, 3, 3, 4, 5)))]


def anything(rng: Random) -> Any:  # noqa: ANN401
    """What a tool may return: mostly an object, also lists, lists of objects, wrapped or bare values."""
    chance = rng.random()
    if chance < 0.52:
        return an_object(rng, 2, rng.choice((1, 2, 2, 3, 3, 4, 5)))
    if chance < 0.64:
        return a_list(rng)
    if chance < 0.74:
        first = an_object(rng, 0, rng.choice((1, 2, 3)))
        more = rng.choice((0, 1, 1, 2))  # records of one kind have the same keys
        return [first, *({key: _alike(rng, value) for key, value in first.items()} for _ in range(more))]
    inner = rng.choice((number, words, words, a_list, lambda r: an_object(r, 1, r.choice((1, 2, 3)))))(rng)
    return {rng.choice(WRAPPERS): inner} if chance < 0.95 else inner


def _alike(rng: Random, value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, bool):
        return rng.random() < 0.5
    if isinstance(value, int | float):
        return number(rng)
    return words(rng) if isinstance(value, str) else value


def an_error(rng: Random) -> tuple[Any, str]:
    """A tool's report that it failed, and the words for it."""
    message = rng.choice(PHRASES["failures"]).format(n=rng.choice(PHRASES["objects"]), w=words(rng), t=a_thing(rng))
    if rng.random() < 0.3:
        message = _sentence(rng)
    code = rng.choice((400, 401, 403, 404, 408, 409, 429, 500, 502, 503, rng.randint(1, 999)))
    key = rng.choice(_MESSAGES)
    value, said = rng.choice(
        (
            ({"error": message}, message),
            ({"error": message}, message),
            ({"error": message, "code": code}, f"{message}, code {code}"),
            ({"error": {"message": message}}, message),
            ({"error": {"code": code, "message": message}}, f"{message}, code {code}"),
            ({"status": "error", key: message}, message),
            ({"success": False, key: message}, message),
            ({"ok": False, key: message}, message),
            (f"Error: {message}", message),
            (f"error: {message}", message),
        )
    )
    return value, f"The tool reports an error: {said}"


def a_forecast(rng: Random, city: str, degrees: int, sky: str) -> Any:  # noqa: ANN401
    """The weather as services return it: flat or nested, with or without the city, a unit and other readings."""
    place = {rng.choice(("city", "location", "place", "name")): city} if rng.random() < 0.35 else {}
    key = rng.choice(("temperature", "temperature", "temp", "temp_c", "temperature_c", "degrees", "current_temp"))
    heat: dict[str, Any] = {key: degrees if rng.random() < 0.7 else round(degrees + rng.random(), 1)}
    if rng.random() < 0.5:
        heat[rng.choice(("unit", "unit", "units"))] = rng.choice(("C", "C", "F", "°C", "°F", "celsius"))
    rest: dict[str, Any] = {}
    if rng.random() < 0.6:
        rest[rng.choice(("condition", "conditions", "sky", "description", "summary", "weather"))] = sky
    for name in rng.sample(
        ("humidity", "wind_speed", "wind", "pressure", "feels_like", "rain"), rng.choice((0, 0, 1, 2, 3))
    ):
        rest[name] = number(rng) if rng.random() < 0.8 else f"{rng.randint(1, 99)}{rng.choice((' km/h', '%', ' mm'))}"
    now = heat | rest if rng.random() < 0.7 else rest | heat
    chance = rng.random()
    if chance < 0.75:
        return place | now
    if chance < 0.85:
        return place | {rng.choice(("current", "weather", "now")): now}
    if chance < 0.93:
        return {
            rng.choice(("location", "place")): {"name": city, "country": made_word(rng).capitalize()},
            "current": now,
        }
    return [
        now | {"day": rng.choice(("Monday", "Tuesday", "Friday", "today", "tomorrow"))}
        for _ in range(rng.choice((1, 2)))
    ]


def a_clock(rng: Random, city: str, time: str) -> Any:  # noqa: ANN401
    """The time as services return it."""
    out: dict[str, Any] = {rng.choice(("city", "location", "timezone")): city} if rng.random() < 0.35 else {}
    out[rng.choice(("time", "time", "time", "current_time", "datetime", "local_time"))] = (
        time
        if rng.random() < 0.7
        else f"{rng.randint(2020, 2035)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}T{time}:00"
    )
    if rng.random() < 0.3:
        out[rng.choice(("day", "date", "utc_offset"))] = rng.choice(
            ("Monday", "Sunday", "2026-03-14", "+02:00", "-05:00")
        )
    return out


def a_sum(rng: Random, operands: dict[str, int], result: int) -> Any:  # noqa: ANN401
    """The result of a calculation as services return it."""
    number = float(result) if rng.random() < 0.06 else result
    key = rng.choice(("result", "result", "result", "sum", "total", "value", "answer"))
    before = rng.choice(({}, {}, {}, {}, operands, {"operation": rng.choice(("add", "sum", "plus"))}, {"ok": True}))
    return rng.choice(
        ({**before, key: number}, {**before, key: number}, {**before, key: number}, [number], {"data": {key: number}})
    )
