"""Values of arguments that a model wrote between tags, typed by the tool's schema."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from puna.messages import Tool


class Schemas:
    """The parameters of tools, by name."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        """Read the schemas; one that is no JSON object counts as empty."""
        self._properties = {tool.name: _properties(tool.parameters) for tool in tools}

    def value(self, tool: str, key: str, text: str) -> Any:
        """Return the value that a text means: JSON where the schema allows other than strings, else the text itself."""
        schema = self._properties.get(tool, {}).get(key)
        kinds = _kinds(schema)
        if kinds == {"string"}:
            return text
        parsed = _parsed(text)
        if parsed is _NOTHING:
            return text
        if isinstance(parsed, str) or ("string" in kinds and _kind(parsed) not in kinds):
            return parsed if isinstance(parsed, str) and "string" not in kinds else text
        return parsed


_NOTHING = object()


def _properties(text: str) -> dict[str, Any]:
    try:
        schema = json.loads(text) if text else {}
    except ValueError:
        return {}
    found = schema.get("properties") if isinstance(schema, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else {}


def _kinds(schema: Any) -> set[str]:
    """Return the JSON types that a schema allows; "string" alone if it does not say."""
    if not isinstance(schema, Mapping):
        return {"string"}
    kind = schema.get("type")
    if isinstance(kind, str):
        return {kind}
    if isinstance(kind, list):
        return {each for each in kind if isinstance(each, str)}
    if isinstance(schema.get("anyOf"), list):
        return set().union(*[_kinds(each) for each in schema["anyOf"]])
    if isinstance(schema.get("enum"), list):
        return {_kind(each) for each in schema["enum"]}
    return {"string"}


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"


def _parsed(text: str) -> Any:
    text = text.strip()
    for candidate in (text, {"True": "true", "False": "false", "None": "null"}.get(text, "")):
        try:
            return json.loads(candidate, parse_int=float)
        except ValueError:
            continue
    return _NOTHING
