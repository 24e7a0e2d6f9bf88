"""Reads objects in the notation of Gemma 4: keys without quotes, texts between quotes that are special tokens."""

import re
from typing import Any, Final

_QUOTE: Final = '<|"|>'
_SCALAR: Final = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null")
_KEY: Final = re.compile(r"[^:}]+")
_SPACE: Final = re.compile(r"\s*")
_WORDS: Final[dict[str, Any]] = {"true": True, "false": False, "null": None}


def read_value(text: str, at: int) -> tuple[Any, int]:
    """Return the value that begins at an offset, and the offset after it. Raises ValueError."""
    at = _skip(text, at)
    if text.startswith(_QUOTE, at):
        # index raises ValueError for a text without an end, like every other fault here.
        end = text.index(_QUOTE, at + len(_QUOTE))
        return text[at + len(_QUOTE) : end], end + len(_QUOTE)
    if text.startswith("{", at):
        return _members(text, at + 1)
    if text.startswith("[", at):
        return _items(text, at + 1)
    found = _SCALAR.match(text, at)
    if not found:
        raise ValueError("no value")
    return _WORDS[found[0]] if found[0] in _WORDS else float(found[0]), found.end()


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _members(text: str, at: int) -> tuple[dict[str, Any], int]:
    out: dict[str, Any] = {}
    at = _skip(text, at)
    while not text.startswith("}", at):
        key = _KEY.match(text, at)
        if not key or not text.startswith(":", key.end()):
            raise ValueError("no key")
        # Some answers quote keys as well.
        name = key[0].strip().removeprefix(_QUOTE).removesuffix(_QUOTE)
        out[name], at = read_value(text, key.end() + 1)
        at = _skip(text, at)
        if text.startswith(",", at):
            # A comma may be the last character before the end.
            at = _skip(text, at + 1)
        elif not text.startswith("}", at):
            raise ValueError("no end of an object")
    return out, at + 1


def _items(text: str, at: int) -> tuple[list[Any], int]:
    out: list[Any] = []
    at = _skip(text, at)
    while not text.startswith("]", at):
        value, at = read_value(text, at)
        out.append(value)
        at = _skip(text, at)
        if text.startswith(",", at):
            at = _skip(text, at + 1)
        elif not text.startswith("]", at):
            raise ValueError("no end of a list")
    return out, at + 1
