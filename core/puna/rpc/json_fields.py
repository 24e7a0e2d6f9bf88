"""Checks of message fields that hold JSON as text. After them the core can rely on the JSON's shape."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from puna.errors import InvalidRequestError
from puna.go import json_text
from puna.messages import Tool
from puna_client.v1 import message_pb2

_REMEMBERED: Final = 16 << 10
"""Characters up to which a checked schema is remembered."""
_LISTS: Final = ("required", "anyOf", "enum")


def json_object(text: str, field: str) -> dict[str, Any]:
    """Return a JSON object; an empty text and null give an empty one. InvalidRequestError names the field."""
    if not text:
        return {}
    value = _read(text, field)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{field} is not a JSON object", field=field)
    return value


def arguments(text: str) -> str:
    """Return the text of a tool call's arguments. InvalidRequestError: it is not a JSON object."""
    json_object(text, "tool_calls.arguments_json")
    # Templates print the arguments, so they get an object even where the client sent nothing.
    return json_text.repaired(text) or "{}"


def tools(wire: Sequence[message_pb2.Tool]) -> tuple[Tool, ...]:
    """Return the tools of a request. InvalidRequestError: a schema has a shape that templates cannot render."""
    found = []
    for number, each in enumerate(wire):
        field = f"tools[{number}].parameters_json"
        # A schema that failed before is checked once more, since the cache knows no field to name in the error.
        if len(each.parameters_json) > _REMEMBERED or not _is_sound(each.parameters_json):
            _check_schema(json_object(each.parameters_json, field), field)
        if each.items_json:
            _read(each.items_json, f"tools[{number}].items_json")
        found.append(
            Tool(
                name=each.name,
                description=each.description,
                parameters=json_text.repaired(each.parameters_json),
                type=each.type or "function",
                items=json_text.repaired(each.items_json),
            )
        )
    return tuple(found)


def check_schema_depth(text: str) -> None:
    """Raise InvalidRequestError if a schema is nested too deeply. Its syntax is checked later."""
    try:
        json_text.check_depth(text)
    except ValueError as error:
        raise InvalidRequestError(f"the JSON schema cannot be enforced: {error}") from error


@lru_cache(maxsize=512)
def _is_sound(text: str) -> bool:
    """Return whether a tool's schema is usable. Cached, because clients send the same tools with each turn."""
    try:
        _check_schema(json_object(text, ""), "")
    except InvalidRequestError:
        return False
    return True


def _read(text: str, field: str) -> json_text.JSON:
    try:
        return json_text.loads(json_text.repaired(text))
    except ValueError as error:
        raise InvalidRequestError(f"{field} is not JSON: {error}", field=field) from error


def _check_schema(schema: object, field: str) -> None:
    if not isinstance(schema, Mapping):
        return
    # Templates iterate over these members. A text instead of an array would be taken apart by characters.
    for key in _LISTS:
        if not isinstance(schema.get(key), list | None):
            raise InvalidRequestError(f'{field}: "{key}" is not an array', field=field)
    properties = schema.get("properties")
    if not isinstance(properties, Mapping | None):
        raise InvalidRequestError(f'{field}: "properties" is not an object', field=field)
    for each in (*(properties or {}).values(), *(schema.get("anyOf") or [])):
        _check_schema(each, field)
