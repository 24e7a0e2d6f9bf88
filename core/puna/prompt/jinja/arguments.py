"""Gives values that a model wrote as plain text the types of the tool's schema."""

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from puna.messages import Tool
from puna.prompt.value import Value

_LONGEST_LITERAL: Final = 1 << 16
"""Characters of a literal in Python's notation. The memory of Python's parser grows with the depth of a literal."""


class Schemas:
    """The schemas of the parameters of tools, by the names of the tools."""

    nulls = False
    """The word null is a text where only texts are allowed."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        """Read the schemas. A schema that is not a JSON object counts as empty."""
        self._schemas = {tool.name: _schema(tool.parameters) for tool in tools}

    def of(self, tool: str) -> dict[str, Any]:
        """Return the schema of a tool's arguments; empty if the tool is unknown."""
        return self._schemas.get(tool, {})

    def value(self, tool: str, key: str, text: str) -> Value:
        """Return the value of an argument: JSON where the schema allows more than strings, else the text itself."""
        return typed(self._property(tool, key), text)

    def only_text(self, tool: str, key: str) -> bool:
        """Return whether the schema of an argument allows only strings."""
        return _kinds(self._property(tool, key)) == {"string"}

    def _property(self, tool: str, key: str) -> object:
        properties = self.of(tool).get("properties")
        return properties.get(key) if isinstance(properties, Mapping) else None


def typed(schema: object, text: str) -> Value:
    """Return the value of a text under a schema. A text that fits only as a string stays a string."""
    kinds = _kinds(schema)
    # A text that looks like JSON stays a text where only strings are allowed: a zip code is no number.
    if kinds == {"string"}:
        return text
    value = parsed(text)
    if "string" in kinds and (isinstance(value, str) or _kind(value) not in kinds):
        return text
    return value


def _schema(text: str) -> dict[str, Any]:
    try:
        schema = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return schema if isinstance(schema, dict) else {}


def _kinds(schema: object) -> set[str]:
    """Return the JSON types that a schema allows; only "string" if the schema does not say."""
    if not isinstance(schema, Mapping):
        return {"string"}
    kind = schema.get("type")
    if isinstance(kind, str | list) and kind:
        kinds = {kind} if isinstance(kind, str) else {each for each in kind if isinstance(each, str)}
        # A text such as 3.0 is accepted where an integer is wanted: all numbers are floats here.
        return kinds | ({"number"} if "integer" in kinds else set())
    if isinstance(schema.get("anyOf"), list):
        return set().union(*[_kinds(each) for each in schema["anyOf"]])
    if isinstance(schema.get("enum"), list):
        return {_kind(each) for each in schema["enum"]}
    return {"string"}


def _kind(value: Value) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"


def parsed(text: str) -> Value:
    """Return the value of a text that is JSON or a literal of Python; the text itself if it is neither."""
    bare = text.strip()
    try:
        return json.loads({"True": "true", "False": "false", "None": "null"}.get(bare, bare), parse_int=float)
    except (ValueError, RecursionError):
        return _python_literal(bare) if bare[:1] in ("[", "{", "(", "'") else text


def _python_literal(text: str) -> Value:
    """Return the value of a list, an object or a string in Python's notation; the text itself for anything else."""
    if len(text) > _LONGEST_LITERAL:
        return text
    try:
        # The detour over JSON refuses what JSON cannot hold, such as sets, and makes tuples lists.
        return json.loads(json.dumps(ast.literal_eval(text), allow_nan=False), parse_int=float)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return text
