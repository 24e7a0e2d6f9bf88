"""Tokens of texts that may be far longer than any context.

A text of N characters can have more than N tokens, and each takes some forty bytes in the host and again here: a prompt
of 100 MB took 5 GB. What a request needs to know of such a text is little: that it does not fit, or the tokens at its
two ends. So a text that is long for a context is tokenized in pieces, and no further than the answer needs.

Pieces end before white space where there is some, which is where tokenizers begin tokens. A piece can still begin a
token early or late, so that a count may be wrong by a few tokens, and tokens where pieces meet may differ from those of
the whole text. Texts that are not long are tokenized whole, and nothing about them is approximate.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from puna.backend import LoadedModel

WHOLE: Final = 512 * 1024
"""Characters of a text that is tokenized whole, whatever the context is."""
PER_TOKEN: Final = 8
"""Characters for each token of the context that keep a text from being long. Most texts have three to five."""
PIECE: Final = 64 * 1024
"""Characters that are tokenized at once of a long text."""
_LOOK_BACK: Final = 256
"""Characters at the end of a piece that are searched for white space."""


@dataclass(frozen=True, slots=True)
class Head:
    """The tokens at the beginning of a text."""

    tokens: list[int]
    complete: bool
    """True if they are all tokens of the text."""
    characters: int
    """Characters of the text that they were made of."""


def is_long(text: str, context: int) -> bool:
    """Tell whether a text is long for so many tokens of context."""
    return len(text) > max(WHOLE, PER_TOKEN * context)


async def head(model: LoadedModel, text: str, wanted: int) -> Head:
    """Return tokens from the beginning of a text, without special ones: all, or at least so many."""
    tokens: list[int] = []
    done = 0
    for piece in _pieces(text):
        tokens += await model.tokenize(piece, add_special=False, parse_special=True)
        done += len(piece)
        if len(tokens) >= wanted:
            break
    return Head(tokens, done == len(text), done)


async def tail(model: LoadedModel, text: str, wanted: int) -> list[int]:
    """Return so many tokens from the end of a text, without special ones, or all if there are fewer."""
    parts: list[Sequence[int]] = []
    count, end = 0, len(text)
    while end > 0 and count < wanted:
        start = _before_space(text, max(end - PIECE, 0)) if end > PIECE else 0
        parts.append(await model.tokenize(text[start:end], add_special=False, parse_special=True))
        count += len(parts[-1])
        end = start
    tokens = [token for part in reversed(parts) for token in part]
    return tokens[max(len(tokens) - wanted, 0) :]


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = start + PIECE
        end = _before_space(text, end) if end < len(text) else len(text)
        yield text[start:end]
        start = end


def _before_space(text: str, end: int) -> int:
    """Return the last place near `end`, and not after it, where white space follows a character of another kind."""
    for place in range(end, max(end - _LOOK_BACK, 1), -1):
        if text[place].isspace() and not text[place - 1].isspace():
            return place
    return end
