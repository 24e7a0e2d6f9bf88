"""Reads arguments that are written as elements with a marker M before each tag: `M<city>OsloM</city>`.

An element that begins with another element is an object, or a list if the inner one is called "item". Every other
element is a text, or a JSON value if the tool's schema says so.
"""

import re
from typing import Any, Final

from puna.prompt.jinja.arguments import typed

_TAG: Final = re.compile(r"<([^<>/\s]+)>")
_ITEM: Final = "item"


def members(text: str, at: int, mark: str, schema: object) -> tuple[dict[str, Any], int]:
    """Return the members that begin at an offset, and the offset after them. Raises ValueError."""
    out: dict[str, Any] = {}
    while (tag := _opening(text, at, mark)) is not None:
        name = tag[1]
        out[name], at = _value(text, tag.end(), mark, name, _member(schema, name))
    return out, at


def _opening(text: str, at: int, mark: str) -> re.Match[str] | None:
    """Return the opening tag of the next element; None: no element follows."""
    while text[at : at + 1].isspace():
        at += 1
    return _TAG.match(text, at + len(mark)) if text.startswith(mark, at) else None


def _value(text: str, at: int, mark: str, name: str, schema: object) -> tuple[Any, int]:
    """Return the value of the element whose opening tag ends at `at`, and the offset after its closing tag."""
    closing = f"{mark}</{name}>"
    value: Any
    first = _opening(text, at, mark)
    if first is None:
        end = text.index(closing, at)
        return typed(schema, text[at:end]), end + len(closing)
    # A property may really be called "item"; then the element is an object.
    if first[1] == _ITEM and not isinstance(_member(schema, _ITEM), dict):
        value = []
        while (tag := _opening(text, at, mark)) is not None and tag[1] == _ITEM:
            item, at = _value(text, tag.end(), mark, _ITEM, schema.get("items") if isinstance(schema, dict) else None)
            value.append(item)
    else:
        value, at = members(text, at, mark, schema)
    end = text.index(closing, at)
    # Text between elements means that the element is neither an object nor a list.
    if text[at:end].strip():
        raise ValueError("text between elements")
    return value, end + len(closing)


def _member(schema: object, name: str) -> object:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    return properties.get(name) if isinstance(properties, dict) else None
