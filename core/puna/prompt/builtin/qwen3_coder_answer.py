"""Calls of Qwen3-Coder: XML with names after an equals sign, and values whose types the tool's schema says."""

import re
from collections.abc import Sequence
from typing import Any, Final

from puna.errors import BackendFailedError
from puna.go.template import literals
from puna.messages import Tool
from puna.prompt import tool_schema
from puna.prompt.builtin.notation import json_text, xml_text

_TAGS: Final = re.compile(r"(<(?:function|parameter)=[^>]+>|</?(?:function|parameter)(?:\s+name=\"[^\"]*\")?>)")


def read_call(raw: str, tools: Sequence[Tool]) -> tuple[str, dict[str, Any]]:
    """Read a call as these models write it: its name, and its arguments with the types that the tool's schema says.

    Raises BackendFailedError for what is none.
    """
    try:
        element = xml_text.read(_TAGS.split(raw), "function")
    except ValueError as error:
        raise BackendFailedError(str(error)) from None
    properties = tool_schema.properties_of(element.name, tools)
    return element.name, {
        parameter.name: typed(parameter.text, tool_schema.types_of(properties.get(parameter.name, {})))
        for parameter in element.named("parameter")
    }


def typed(raw: str, types: Sequence[str]) -> object:
    """Return the value that a text means for a parameter of these types, without its line ends; itself if none."""
    return typed_exactly(raw.removeprefix("\n").removesuffix("\n"), types)


def typed_exactly(raw: str, types: Sequence[str]) -> object:
    """Return the same for a text whose white space counts."""
    if raw.lower() == "null":
        return None
    only = len(types) == 1
    for wanted in ("boolean", "integer", "number", "array", "object"):
        if wanted not in types:
            continue
        found, value = _read(raw, wanted)
        if found:
            return value
        if only:
            return False if wanted == "boolean" else raw
    return raw


def _read(raw: str, wanted: str) -> tuple[bool, object]:
    """Say whether a text is of a type, and return what it means."""
    match wanted:
        case "boolean":
            return raw.lower() in ("true", "false"), raw.lower() == "true"
        case "integer":
            whole = int(raw) if re.fullmatch(r"[+-]?[0-9]+", raw) else 2**63
            return -(2**63) <= whole < 2**63, whole
        case "number":
            number = literals.floating(raw) if raw.isascii() else None
            return number is not None, int(number) if number is not None and number.is_integer() else number
    try:
        value = json_text.read(raw)
    except ValueError:
        return False, None
    return isinstance(value, list if wanted == "array" else dict) or value is None, value
