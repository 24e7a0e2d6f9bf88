"""Reads embedding vectors. The answer comes from another server, so its shape is checked."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

from puna.backend import Embedding
from puna_openai.answers import NonsenseError

AT_ONCE: Final = 256
"""Texts of one request. OpenAI takes 2048, other servers fewer."""
Input = str | Sequence[int]


def batches(inputs: Sequence[Input]) -> Iterator[list[Any]]:
    """Return the inputs in parts, as JSON values."""
    for begin in range(0, len(inputs), AT_ONCE):
        yield [each if isinstance(each, str) else list(each) for each in inputs[begin : begin + AT_ONCE]]


def read(answer: object, inputs: Sequence[Input]) -> list[Embedding]:
    """Return the vectors in the order of the inputs. Raises NonsenseError.

    An upstream counts the tokens of a request and not of each text, so they are divided by the lengths of the texts.
    """
    if not isinstance(answer, dict) or not isinstance(answer.get("data"), list):
        raise NonsenseError("it has no list of vectors")
    data: list[Any] = answer["data"]
    if len(data) != len(inputs):
        raise NonsenseError(f"it has {len(data)} vectors for {len(inputs)} texts")
    vectors: list[Sequence[float] | None] = [None] * len(inputs)
    for place, entry in enumerate(data):
        if not isinstance(entry, dict):
            raise NonsenseError("a vector is no object")
        index = entry.get("index", place)
        if type(index) is not int or not 0 <= index < len(inputs) or vectors[index] is not None:
            raise NonsenseError("the indexes of the vectors do not match the texts")
        vectors[index] = _vector(entry.get("embedding"))
    found = [each for each in vectors if each is not None]
    if len({len(each) for each in found}) > 1:
        raise NonsenseError("its vectors differ in length")
    usage = answer.get("usage")
    total = usage.get("prompt_tokens") if isinstance(usage, dict) else 0
    counts = _shares(total if type(total) is int and total > 0 else 0, [len(each) for each in inputs])
    return [Embedding(values, count) for values, count in zip(found, counts, strict=True)]


def normalised(embedding: Embedding) -> Embedding:
    """Scale a vector to length 1."""
    length = math.sqrt(sum(value * value for value in embedding.values)) or 1.0
    return Embedding([value / length for value in embedding.values], embedding.token_count)


def _vector(values: object) -> Sequence[float]:
    if not isinstance(values, list) or not values:
        raise NonsenseError("a vector is no list of numbers")
    # bool is a kind of int.
    if not all(type(value) in (float, int) and math.isfinite(value) for value in values):
        raise NonsenseError("a vector has something else than finite numbers")
    return values


def _shares(total: int, lengths: Sequence[int]) -> list[int]:
    """Divide a count in the ratio of lengths. The shares are whole and add up to the count."""
    whole = sum(lengths)
    if not whole:
        return [0] * len(lengths)
    shares, seen, given = [], 0, 0
    for length in lengths:
        seen += length
        # Each share ends where the running total stands, so that rounding never adds up.
        share = total * seen // whole - given
        given += share
        shares.append(share)
    return shares
