"""Reads calls of Gemma 4: JSON with bare keys, and strings between special quotes.

A call that cannot be read is mended as in Ollama. The variants are tried in order, and the first that is JSON counts:
strings in single quotes, a string without its end, and one text without quotes where the tool's schema has a string.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from puna.go import json as gojson
from puna.go.space import SPACE
from puna.messages import Tool
from puna.prompt import tool_schema
from puna.prompt.builtin.notation import json_text

QUOTE: Final = '<|"|>'
_BEGINNING: Final = "call:"
_KEY: Final = re.compile(r"([{,][ \t\n\f\r]*)(\w+):")
_TOP_KEY: Final = re.compile(r"[{,][ \t\n\f\r]*(\w+)[ \t\n\f\r]*:")
_SINGLE_QUOTED: Final = re.compile(r"(:\s*)'((?:[^'\\]|\\.)*)'(?=\s*[,}\]])", re.DOTALL)
_NO_TEXT: Final = re.compile(r"\s*[\"'{\[\-0-9tfn]")
"""The beginning of a value that is not taken for a text without quotes."""


def read_call(raw: str, tools: Sequence[Tool]) -> tuple[str, dict[str, Any]] | None:
    """Return a call's name and arguments; None if the text is no call."""
    name, found, text = raw.removeprefix(_BEGINNING).partition("{")
    if not raw.startswith(_BEGINNING) or not found:
        return None
    name = name.strip(SPACE)
    trimmed = text.rstrip(SPACE)
    for variant in _variants(
        "{" + (trimmed if trimmed.endswith("}") else text), tool_schema.properties_of(name, tools)
    ):
        try:
            return name, json_text.read_arguments(_as_json(variant))
        except ValueError:
            continue
    return None


def _variants(text: str, properties: Mapping[str, Any]) -> Iterator[str]:
    """Yield the text as it is, then mended in one way or several."""
    yield text
    unquoted = _SINGLE_QUOTED.sub(lambda m: f"{m[1]}{QUOTE}{m[2]}{QUOTE}", text)
    mended = (text, unquoted, _ended(text), _ended(unquoted))
    yield from mended[1:]
    for variant in mended:
        yield from _quoted(variant, properties)


def _ended(text: str) -> str:
    """Return the text with the end quote of the last string, if that is missing."""
    # Quotes come in pairs, so an odd number means that the last string is open.
    if text.count(QUOTE) % 2 == 0:
        return text
    return f"{text.removesuffix('}')}{QUOTE}}}"


def _quoted(text: str, properties: Mapping[str, Any]) -> Iterator[str]:
    """Yield the text with quotes around the first string without: it ends at the next known key or with the object."""
    for match in _TOP_KEY.finditer(text):
        # A value that begins like JSON is left alone, even where the schema wants a text.
        if "string" not in tool_schema.types_of(properties.get(match[1], {})) or _NO_TEXT.match(text, match.end()):
            continue
        keys = (found.start() for found in _TOP_KEY.finditer(text, match.end()) if found[1] in properties)
        end = next((at for at in keys if text[at] == ","), len(text) - text.endswith("}"))
        value = text[match.end() : end]
        if QUOTE not in value:
            closing = "" if text.endswith("}") else "}"
            yield f"{text[: match.end()]}{QUOTE}{value}{QUOTE}{text[end:]}{closing}"
            return


def _as_json(text: str) -> str:
    """Return the text as JSON, with keys and strings quoted. Raises ValueError if a string has no end."""
    # The strings are taken out first, so that their text is never mistaken for a key. NUL cannot occur in the outline.
    parts = text.split(QUOTE)
    if len(parts) % 2 == 0:
        raise ValueError(text)
    outline = _KEY.sub(lambda m: f"{m[1]}{gojson.string(m[2])}:", '"\x00"'.join(parts[::2]))
    strings = [*map(gojson.string, parts[1::2]), ""]
    return "".join(piece + strings[i] for i, piece in enumerate(outline.split('"\x00"')))
