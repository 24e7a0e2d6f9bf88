"""Writes the grammar of arguments in a notation other than JSON, such as keyword arguments of Python.

Types, properties, items, enumerations, alternatives and references of a tool's schema bind. Narrower keywords, such as
lengths and patterns, do not.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from puna.go import json as gojson
from puna.prompt.layout import Literals

_KEY: Final = re.compile(r"[A-Za-z0-9_]+")
# At most 18 digits, which fit in 64 bits. The bound also keeps a model from writing digits without end.
_INTEGER: Final = "/-?(0|[1-9][0-9]{0,17})/"
_NUMBER: Final = r"/-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,17})?([eE][+-]?[0-9]{1,2})?/"
_NULL: Final = {"type": "null"}
_DEEPEST: Final = 8
"""Levels of a schema that are followed. Deeper values may be anything, which also ends recursive references."""


class LiteralGrammar:
    """Makes the expressions of values, and collects the rules that they use."""

    def __init__(self, literals: Literals, fixed_text: Callable[[str], str], *, quotes_are_tokens: bool) -> None:
        """fixed_text: makes the expression of a fixed text; quotes_are_tokens: the quotes may be special tokens."""
        self._literals = literals
        self._fixed_text = fixed_text
        self._quotes_are_tokens = quotes_are_tokens
        self._root: Mapping[str, Any] = {}
        self.rules: list[str] = []

    def members(self, schema: Mapping[str, Any], pair: Callable[[str], str], depth: int = 0) -> str | None:
        """Return the expression of the members of an object, the required ones first; None: a key cannot be written.

        `pair` returns the text before the value of a key.
        """
        # References count from the root, so it is kept while inner schemas are expressed.
        if depth == 0:
            self._root = schema
        properties = schema.get("properties")
        if not isinstance(properties, Mapping):
            return self._rule('""')
        # Keys are written bare, so a key with other characters could not be read again.
        if not all(map(_KEY.fullmatch, properties)):
            return None
        # Required members come first because each optional one then needs one rule and not one for each combination.
        required = [key for key in properties if key in (schema.get("required") or ())]
        names = {
            key: self._rule(f"{json.dumps(pair(key))} {self.value(each, depth)}") for key, each in properties.items()
        }
        comma = "/, ?/" if self._literals.spaced else '","'

        optional = [key for key in properties if key not in required]
        # Built from the last member: each rule is the rest of the object. The first member has no comma, so an object
        # without required members has one alternative for each member that may come first, and one for none.
        alternatives, following = [], '""'
        for key in reversed([*required, *optional]):
            alternatives.append(f"{names[key]} {following}")
            following = self._rule(f"({comma} {names[key]}){'' if key in required else '?'} {following}")
        return self._rule(alternatives[-1] if required else " | ".join(['""', *reversed(alternatives)]))

    def value(self, schema: object, depth: int = 0) -> str:
        """Return the expression of a value; of any value if nothing in the schema can be expressed."""
        schema = self._resolved(schema)
        if not isinstance(schema, Mapping) or depth > _DEEPEST:
            return self._anything()
        listed = [schema["const"]] if "const" in schema else schema.get("enum")
        # Lists and objects in an enumeration have no notation of their own here; their type binds instead.
        if isinstance(listed, list) and listed and not any(isinstance(each, list | dict) for each in listed):
            return _either([self._scalar(each) for each in listed])
        alternatives = schema.get("anyOf") or schema.get("oneOf")
        if isinstance(alternatives, list) and (
            alternatives := [each for each in alternatives if self._literals.null or each != _NULL]
        ):
            return _either([self.value(each, depth + 1) for each in alternatives])
        types = schema.get("type")
        types = [types] if isinstance(types, str) else types
        if isinstance(types, list) and (types := [one for one in types if self._literals.null or one != "null"]):
            return _either([self._typed(one, schema, depth) for one in types])
        return self._anything()

    def _resolved(self, schema: object) -> object:
        """Follow references within the tool's schema."""
        # References may form a circle.
        for _ in range(_DEEPEST):
            reference = schema.get("$ref") if isinstance(schema, Mapping) else None
            if not isinstance(reference, str) or not reference.startswith("#"):
                break
            schema = self._root
            for part in reference[1:].split("/")[1:]:
                schema = schema.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(schema, Mapping) else None
        return schema

    def _typed(self, one: object, schema: Mapping[str, Any], depth: int) -> str:
        match one:
            case "string":
                return self._text(inner=depth > 0)
            case "integer":
                return _INTEGER
            case "number":
                return _NUMBER
            case "boolean":
                return '("true" | "false")'
            case "null":
                return json.dumps(self._literals.null)
            case "array":
                each = self.value(schema.get("items"), depth + 1)
                return f'"[" ({each} ("," {each})*)? "]"'
            case "object" if schema.get("properties"):
                inside = self.members(schema, self._before_value, depth + 1)
                return f'"{{" {inside} "}}"' if inside else self._anything()
            case "object":
                self._anything()
                return "mapping"
        return self._anything()

    def _before_value(self, key: str) -> str:
        return f"{key}:" if self._literals.bare_keys else f'"{key}":'

    def _scalar(self, value: object) -> str:
        if isinstance(value, str):
            return self._fixed_text(f"{self._literals.quote}{value}{self._literals.quote}")
        return json.dumps(self._literals.null or "null" if value is None else gojson.dumps(value))

    def _text(self, *, inner: bool) -> str:
        """Return the expression of a quoted text: between two special tokens, or with the quotes spelled out."""
        inside = self._literals.inner if inner and self._literals.inner else self._literals.text
        quote = self._literals.quote
        spelled = f"{json.dumps(quote)} /({inside})*{re.escape(quote)}/"
        if not self._quotes_are_tokens:
            return self._rule(spelled)
        return self._rule(f"{self._fixed_text(quote)} /({inside})*/ {self._fixed_text(quote)} | {spelled}")

    def _anything(self) -> str:
        # The rules of any value are written once, however often they are used.
        if not any(rule.startswith("anything:") for rule in self.rules):
            null = f" | {json.dumps(self._literals.null)}" if self._literals.null else ""
            key = "/[A-Za-z0-9_]+:/" if self._literals.bare_keys else '/"[A-Za-z0-9_ -]+":/'
            self.rules += [
                f'anything: {self._text(inner=True)} | {_NUMBER} | "true" | "false"{null} | listed | mapping',
                'listed: "[" (anything ("," anything)*)? "]"',
                f'mapping: "{{" ({key} anything ("," {key} anything)*)? "}}"',
            ]
        return "anything"

    def _rule(self, expression: str) -> str:
        self.rules.append(f"value{len(self.rules)}: {expression}")
        return self.rules[-1].partition(":")[0]


def _either(alternatives: Sequence[str]) -> str:
    return f"({' | '.join(alternatives)})"
