"""Data out of a text, as JSON in the order of a schema."""

import json
from collections.abc import Callable
from typing import Any

from train_demo.phrasings import PHRASES
from train_demo.wording import Episode, said
from train_demo.words import Random, a_city, a_name, a_number, a_thing, made_word

Value = str | int | bool | list[str]


def _join(items: list[str], rng: Random) -> str:
    between = " and " if rng.random() < 0.25 else ", "
    return between.join(items[:-1]) + (rng.choice((" and ", ", ", ", and ")) if len(items) > 1 else "") + items[-1]


def _some(rng: Random, pool: list[str]) -> list[str]:
    return [rng.choice(pool) if rng.random() < 0.75 else made_word(rng) for _ in range(rng.choice((1, 2, 2, 3, 3, 4)))]


_PERSON: dict[str, tuple[str, Callable[[Random], Value], Any]] = {
    "name": ("string", a_name, PHRASES["person_name"]),
    "age": ("integer", lambda r: r.randint(1, 99), PHRASES["person_age"]),
    "city": ("string", a_city, PHRASES["person_city"]),
    "job": ("string", lambda r: r.choice(PHRASES["jobs"]) if r.random() < 0.7 else made_word(r), PHRASES["person_job"]),
    "hobbies": ("array", lambda r: _some(r, PHRASES["hobbies"]), PHRASES["person_hobbies"]),
    "active": (
        "boolean",
        lambda r: r.random() < 0.5,
        (
            ("is active", "the account is active", "active", "still active"),
            ("is not active", "the account is not active", "not active", "no longer active"),
        ),
    ),
    "married": (
        "boolean",
        lambda r: r.random() < 0.5,
        (("is married", "married"), ("is not married", "not married", "is single")),
    ),
}

_ITEM: dict[str, tuple[str, Callable[[Random], Value], Any]] = {
    "name": ("string", lambda r: a_thing(r), PHRASES["item_name"]),
    "price": ("integer", a_number, PHRASES["item_price"]),
    "quantity": ("integer", a_number, PHRASES["item_quantity"]),
    "color": ("string", lambda r: r.choice(PHRASES["colors"]), PHRASES["item_color"]),
    "tags": ("array", lambda r: _some(r, [*PHRASES["nouns"], *PHRASES["adjectives"]]), PHRASES["item_tags"]),
    "available": (
        "boolean",
        lambda r: r.random() < 0.5,
        (
            ("is available", "available", "it is available now"),
            ("is not available", "not available", "it is not available now"),
        ),
    ),
    "id": ("integer", a_number, PHRASES["item_id"]),
    "title": ("string", lambda r: " ".join(a_thing(r) for _ in range(r.choice((1, 1, 2)))), PHRASES["item_title"]),
}


def _sentence(rng: Random, said_parts: list[str]) -> str:
    if rng.random() < 0.5:
        text = (
            ", ".join(said_parts[:-1])
            + (rng.choice((", ", " and ", ", and ")) if len(said_parts) > 1 else "")
            + said_parts[-1]
        )
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
        schema = {
            "properties": listed,
            "required": list(properties),
            "title": rng.choice(("Person", "Item", "Data")),
            "type": "object",
        }
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
    if pool is _PERSON and rng.random() < 0.15:
        names = [*{*names, "active", "married"}]
        names.sort()
        rng.shuffle(names)
    values = {name: pool[name][1](rng) for name in names}
    kinds = {name: pool[name][0] for name in names}
    if rng.random() < 0.2:  # a property nobody has heard of: only a list of keys and values can tell it
        odd = rng.choice(
            (
                made_word(rng),
                rng.choice(PHRASES["nouns"]),
                rng.choice(PHRASES["nouns"]) + "_" + rng.choice(PHRASES["nouns"]),
            )
        )
        kinds[odd], values[odd] = rng.choice(
            (
                ("string", made_word(rng)),
                ("integer", a_number(rng)),
                ("boolean", rng.random() < 0.5),
                ("array", _some(rng, PHRASES["nouns"])),
                ("string", a_name(rng)),
            )
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
        ask_text = rng.choice(PHRASES["json_sketched"])
        return said(ask_text.format(s=_sketch(ordered), t=text), answer, thinking)
    return said(rng.choice(PHRASES["json_asked"]).format(s=schema_text(rng, ordered), t=text), answer, thinking)


def go_json_ordered(value: dict[str, Any]) -> str:
    """Compact JSON in the order given."""
    return json.dumps(value, separators=(",", ":"))
