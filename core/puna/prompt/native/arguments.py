"""Values of arguments that a model wrote between tags, typed by the tool's schema."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from puna.messages import Tool
from puna.prompt.jinja_environment import Value


class Schemas:
    """The parameters of tools, by name."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        """Read the schemas; one that is no JSON object counts as empty."""
        self._properties = {tool.name: _properties(tool.parameters) for tool in tools}

    def value(self, tool: str, key: str, text: str) -> Value:
        """Return the value that a text means: JSON where the schema allows other than strings, else the text itself."""
        schema = self._properties.get(tool, {}).get(key)
        kinds = _kinds(schema)
        if kinds == {"string"}:
            return text
        value = parsed(text)
        if "string" in kinds and (isinstance(value, str) or _kind(value) not in kinds):
            return text
        return value


def _properties(text: str) -> dict[str, Any]:
    try:
        schema = json.loads(text) if text else {}
    except ValueError:
        return {}
    found = schema.get("properties") if isinstance(schema, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else {}


def _kinds(schema: Value) -> set[str]:
    """Return the JSON types that a schema allows; "string" alone if it does not say."""
    if not isinstance(schema, Mapping):
        return {"string"}
    kind = schema.get("type")
    if isinstance(kind, str | list) and kind:
        kinds = {kind} if isinstance(kind, str) else {each for each in kind if isinstance(each, str)}
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
    """Return what a text means as JSON, or as one of Python's words; itself if it is neither."""
    bare = text.strip()
    try:
        return json.loads({"True": "true", "False": "false", "None": "null"}.get(bare, bare), parse_int=float)
    except ValueError:
        return text
