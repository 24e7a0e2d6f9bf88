"""JSON schemas of all kinds that people write, made from a seed by a small grammar; most answers to them are short."""

import random

FORMATS = ("date", "time", "date-time", "ipv4", "uuid", "duration")
PATTERNS = (
    "^[a-z]{2,6}$",
    "^(GET|POST)$",
    "^[A-Z][a-z]{1,8}$",
    "^[0-9]{3}-[0-9]{4}$",
    "^#[0-9a-f]{6}$",
    '^[^"z]{1,4}$',
)
NAMES = ("name", "age", "id", "tags", "city", "size", "kind", "Größe", "is ok", "a/b", "zeta", "alpha")

UNENFORCEABLE = (
    ("uniqueItems", {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}),
    ("not", {"not": {"type": "string"}}),
    ("look-ahead", {"type": "string", "pattern": "^a(?!b)[a-z]$"}),
    ("backreferences", {"type": "string", "pattern": r"^(a|b)\1$"}),
    ("propertyNames", {"type": "object", "propertyNames": {"not": {"const": "a"}}}),
    ("dependentRequired", {"type": "object", "dependentRequired": {"a": ["b"]}}),
    ("contains", {"type": "array", "contains": {"const": 1}}),
    ("if", {"if": {"type": "string"}, "then": {"maxLength": 3}}),
    ("oneOf", {"oneOf": [{"type": "integer"}, {"type": "number"}]}),
    ("minProperties", {"type": "object", "minProperties": 2}),
    ("maxProperties", {"type": "object", "additionalProperties": True, "maxProperties": 1, "properties": {"a": {}}}),
    ("unevaluatedProperties", {"type": "object", "unevaluatedProperties": False}),
    ("minimum", {"type": "integer", "minimum": 10**19}),
    ("const", {"oneOf": [{"const": 10**30 + 1}, {"const": 1}]}),
    ("pattern", {"type": "string", "pattern": r"^[\x00-\x1f]$"}),
    ("not", {"x-guidance": {"lenient": True}, "type": "object", "properties": {"a": {"not": {"const": 1}}}}),
)
"""What no grammar can hold, with the word by which a refusal must name it."""


def schema(seed):
    """Make one schema: an object, as nearly all are that people ask for."""
    rng = random.Random(seed)
    definitions = {"point": _object(rng, 2), "level": {"enum": ["low", "mid", "high"]}}
    made = _object(rng, 0)
    return {"$defs": definitions} | made


def _object(rng, depth):
    names = rng.sample(NAMES, rng.randint(1, 4 - depth))
    properties = {name: _any(rng, depth + 1) for name in names}
    required = [name for name in rng.sample(names, len(names)) if rng.random() < 0.7]
    made = {"type": "object", "properties": properties, "required": required}
    other = rng.random()
    if other < 0.8:
        made["additionalProperties"] = False
    elif other < 0.9:
        made |= {"additionalProperties": {"type": "integer"}, "maxProperties": len(names) + 1, "required": names}
    else:
        made |= {"patternProperties": {"^x_[a-z]{1,3}$": {"type": "boolean"}}, "additionalProperties": False}
    return made


def _array(rng, depth):
    least = rng.randint(0, 2)
    made = {"type": "array", "items": _any(rng, depth + 1), "minItems": least, "maxItems": least + rng.randint(0, 2)}
    if rng.random() < 0.2:
        made |= {"prefixItems": [_scalar(rng), _scalar(rng)]}
    return made


def _any(rng, depth):
    if depth < 3 and rng.random() < 0.4:
        return rng.choice((_object, _array, _union))(rng, depth)
    return _scalar(rng)


def _union(rng, depth):
    if rng.random() < 0.5:
        return {"anyOf": [_any(rng, depth + 1), {"type": "null"}]}
    return {"oneOf": [_text(rng), _whole(rng), {"type": "boolean"}]}


def _scalar(rng):
    return rng.choice((_text, _text, _whole, _number, _choice, _reference, _nullable))(rng)


def _text(rng):
    kind = rng.random()
    if kind < 0.5:
        least = rng.randint(0, 3)
        return {"type": "string", "minLength": least, "maxLength": least + rng.randint(0, 8)}
    if kind < 0.75:
        return {"type": "string", "pattern": rng.choice(PATTERNS)}
    return {"type": "string", "format": rng.choice(FORMATS)}


def _whole(rng):
    low = rng.randint(-50, 1000)
    made = {"type": "integer", "minimum": low, "maximum": low + rng.randint(5, 2000)}
    return made | ({"multipleOf": rng.choice((2, 5))} if rng.random() < 0.3 else {})


def _number(rng):
    low = rng.randint(-40, 40) / 4
    if rng.random() < 0.5:
        return {"type": "number", "multipleOf": 0.25, "minimum": low, "maximum": low + 5}
    return {"type": "number", "exclusiveMinimum": low, "exclusiveMaximum": low + rng.choice((0.5, 3, 100))}


def _choice(rng):
    return rng.choice(
        (
            {"enum": ["red", "green", "blue"]},
            {"enum": [1, "two", None, 3.5, [4], {"five": 5}]},
            {"const": "fixed"},
            {"const": {"b": 1, "a": ['"', "\\", "ü"]}},
            {"type": "boolean"},
        )
    )


def _reference(rng):
    return {"$ref": rng.choice(("#/$defs/point", "#/$defs/level"))}


def _nullable(rng):
    return {"type": ["string", "null"], "maxLength": 6}
