"""Reads calls of Qwen3-Coder: XML with names after an equals sign, and values typed by the tool's schema.

    call = "<function=" NAME ">" ("<parameter=" KEY ">" "\\n" VALUE "\\n" "</parameter>")* "</function>"

puna.prompt.builtin.tagged finds the calls in an answer. A value is plain text, so its type comes from the schema.
"""

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
    """Return a call's name and its arguments, typed by the tool's schema. Raises BackendFailedError for other texts."""
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
    """Return the value of a text for a parameter of these types; the text itself if it fits none of them.

    One line end on each side belongs to the notation.
    """
    return typed_exactly(raw.removeprefix("\n").removesuffix("\n"), types)


def typed_exactly(raw: str, types: Sequence[str]) -> object:
    """Return the same for a text whose line ends belong to the value."""
    # null stands for every type, since the notation has no quotes to distinguish it from the text.
    if raw.lower() == "null":
        return None
    only = len(types) == 1
    # From the narrowest type to the widest: "1" fits number too, and every text fits string.
    for wanted in ("boolean", "integer", "number", "array", "object"):
        if wanted not in types:
            continue
        found, value = _read(raw, wanted)
        if found:
            return value
        if only:
            # Ollama gives false for a text that is no boolean, and the text itself for every other type.
            return False if wanted == "boolean" else raw
    return raw


def _read(raw: str, wanted: str) -> tuple[bool, object]:
    """Return whether a text is of a type, and its value."""
    match wanted:
        case "boolean":
            return raw.lower() in ("true", "false"), raw.lower() == "true"
        case "integer":
            # 2**63 stands for no integer: it is the first number beyond the range.
            whole = int(raw) if re.fullmatch(r"[+-]?[0-9]+", raw) else 2**63
            return -(2**63) <= whole < 2**63, whole
        case "number":
            number = literals.floating(raw) if raw.isascii() else None
            # Go prints a float without a fraction as an integer.
            return number is not None, int(number) if number is not None and number.is_integer() else number
    try:
        value = json_text.read(raw)
    except ValueError:
        return False, None
    return isinstance(value, list if wanted == "array" else dict) or value is None, value
