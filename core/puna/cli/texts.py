"""Texts from outside: they may have another encoding, or characters that control the terminal."""

import re
from typing import Final

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def readable(text: str) -> str:
    """Return a text with U+FFFD for each surrogate, which stands for a byte of another encoding."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


def printable(text: str) -> str:
    """Return a text with U+FFFD for each character that could control the terminal; line breaks and tabs stay."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
