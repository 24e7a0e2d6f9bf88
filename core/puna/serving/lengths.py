"""Tokenizes texts that may be far longer than any context.

A text of N characters can have more than N tokens, and each takes some forty bytes in the host and again in the core: a
prompt of 100 MB took 5 GB. A request needs to know little of such a text: that it does not fit, or the tokens at its
two ends. So a text that is long for a context is tokenized in chunks, and no further than the answer needs.

A chunk ends before white space where there is some, since tokenizers begin tokens there. The border may still split a
token, so that a count may be wrong by a few tokens, and the tokens at a border may differ from those of the whole text.
Texts that are not long are tokenized whole, and nothing about them is approximate.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from puna.backend import LoadedModel

WHOLE: Final = 512 * 1024
"""Texts of up to this many characters are never long."""
PER_TOKEN: Final = 8
"""Characters per token of the context up to which a text is not long. Most texts have three to five."""
CHUNK: Final = 64 * 1024
"""Characters of a long text that are tokenized in one call."""
_LOOK_BACK: Final = 256
"""Characters at the end of a chunk that are searched for white space."""


@dataclass(frozen=True, slots=True)
class Head:
    """The tokens at the beginning of a text."""

    tokens: list[int]
    complete: bool
    """Whether these are all tokens of the text."""
    characters: int
    """Number of characters that they stand for."""


def is_long(text: str, context: int) -> bool:
    """Return whether a text is long for a context of so many tokens."""
    return len(text) > max(WHOLE, PER_TOKEN * context)


async def head(model: LoadedModel, text: str, minimum: int) -> Head:
    """Return the first tokens of a text, without BOS and EOS: all of them, or at least `minimum`."""
    tokens: list[int] = []
    done = 0
    for chunk in _chunks(text):
        tokens += await model.tokenize(chunk, add_special=False, parse_special=True)
        done += len(chunk)
        # The rest of the text is never tokenized. This bounds memory by the context and not by the prompt.
        if len(tokens) >= minimum:
            break
    return Head(tokens, done == len(text), done)


async def tail(model: LoadedModel, text: str, minimum: int) -> list[int]:
    """Return the last `minimum` tokens of a text, without BOS and EOS, or all if there are fewer."""
    parts: list[Sequence[int]] = []
    count, end = 0, len(text)
    while end > 0 and count < minimum:
        # Chunks are counted from the end, so their borders differ from those of `head`.
        start = _before_space(text, max(end - CHUNK, 0)) if end > CHUNK else 0
        parts.append(await model.tokenize(text[start:end], add_special=False, parse_special=True))
        count += len(parts[-1])
        end = start
    tokens = [token for part in reversed(parts) for token in part]
    return tokens[max(len(tokens) - minimum, 0) :]


def _chunks(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = start + CHUNK
        end = _before_space(text, end) if end < len(text) else len(text)
        yield text[start:end]
        start = end


def _before_space(text: str, end: int) -> int:
    """Return the last position near `end`, and not after it, at which white space follows another character."""
    # A run of white space belongs to one token in many vocabularies, so the border stands before the run.
    for place in range(end, max(end - _LOOK_BACK, 1), -1):
        if text[place].isspace() and not text[place - 1].isspace():
            return place
    # Text without spaces, such as Chinese or base64, is cut anywhere.
    return end
