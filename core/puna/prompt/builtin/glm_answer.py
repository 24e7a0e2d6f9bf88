"""Reads calls of GLM: a name, then pairs of keys and values between tags.

    call = NAME ("<arg_key>" KEY "</arg_key>" "<arg_value>" VALUE "</arg_value>")*

puna.prompt.builtin.tagged finds the calls in an answer. Models leave tags out and write tags twice. Ollama then puts
the missing tags in and reads the call again, and so does `_mended`.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

from puna.errors import BackendFailedError
from puna.go.space import SPACE
from puna.messages import Tool
from puna.prompt import tool_schema
from puna.prompt.builtin.notation import xml_text
from puna.prompt.builtin.qwen3_coder_answer import typed

_CYCLE: Final = ("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>")
_WORD_AND_REST: Final = re.compile(r"\s*(\S*)\s*(.*)", re.DOTALL)
_TAGS: Final = re.compile(r"(</?arg_(?:key|value)>)")


def read_call(raw: str, tools: Sequence[Tool]) -> tuple[str, dict[str, Any]]:
    """Return a call's name and its arguments, typed by the tool's schema. Missing and surplus tags are mended.

    Raises BackendFailedError.
    """
    # A call is mended only if it cannot be read as it is.
    try:
        element = _element(_TAGS.split(raw))
    except ValueError:
        try:
            element = _element(_mended(_TAGS.split(raw.strip(SPACE))))
        except ValueError as error:
            raise BackendFailedError(f"failed to parse XML: {error}") from None
    return _call(element, tools)


def read_unclosed_call(raw: str, tools: Sequence[Tool]) -> tuple[str, dict[str, Any]]:
    """Return name and arguments of a call without its end tag. No tag is mended. Raises BackendFailedError."""
    try:
        return _call(_element(_TAGS.split(raw)), tools)
    except ValueError as error:
        raise BackendFailedError(str(error)) from None


def _element(parts: Sequence[str]) -> xml_text.Element:
    return xml_text.read(["", "<tool_call>", *parts, "</tool_call>"], "tool_call")


def _call(element: xml_text.Element, tools: Sequence[Tool]) -> tuple[str, dict[str, Any]]:
    name = element.text.strip(SPACE)
    if not name:
        raise BackendFailedError("empty function name")
    keys = [key.text.strip(SPACE) for key in element.named("arg_key")]
    values = [value.text for value in element.named("arg_value")]
    # Ollama's error, which clients see.
    if len(keys) != len(values):
        message = f"mismatched arg_key and arg_value counts: {len(keys)} keys, {len(values)} values"
        raise BackendFailedError(message)
    properties = tool_schema.properties_of(name, tools)
    return name, {
        key: typed(value, tool_schema.types_of(properties.get(key, {})))
        for key, value in zip(keys, values, strict=True)
    }


def _mended(parts: Sequence[str]) -> list[str]:
    """Return texts and tags in turn, with missing tags put in so that the tags follow their cycle.

    A text stays in its element if the next tag could follow that element. Otherwise it becomes the text of an element
    that is put in. Where the first tag is missing, only the first word is the name.
    """
    name, texts = parts[0], list(parts[:-1:2])
    if parts[1] != _CYCLE[0]:
        name, texts[0] = _WORD_AND_REST.fullmatch(name).groups()  # type: ignore[union-attr]  # it matches anything
    else:
        texts[0] = ""
    out, place = [], 0
    for text, tag in zip(texts, parts[1::2], strict=True):
        put_in = False
        while (expected := _CYCLE[place % 4]) != tag:
            opens = place % 2 == 0
            stays = not opens and (put_in or _CYCLE[(place + 1) % 4] == tag)
            out += [text if stays else "", expected]
            text = "" if stays else text
            put_in = opens
            place += 1
        out += [text, tag]
        place += 1
    rest = parts[-1] if place % 2 else ""
    while place % 4:
        out += [rest, _CYCLE[place % 4]]
        rest = ""
        place += 1
    return [name + out[0], *out[1:], ""]
