"""Compares two renderings of a template, to find what a difference in the input changes in the text.

Texts are compared by segments. Two markers with the same beginning ("<think>" and "<tool_call>") are therefore
different from their first character on. A marker is a text in angle or square brackets.
"""

import re
from dataclasses import dataclass
from typing import Final

MARKER: Final = re.compile(r"<[^>]*>|\[[^\]]*\]")
"""A marker, anywhere."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Two texts: their common start, the middle of each, their common end."""

    prefix: str
    left: str
    right: str
    suffix: str


def segments(text: str) -> list[str]:
    """Cut a text into markers and the texts between them. Joined, they are the text again."""
    out: list[str] = []
    position = 0
    for found in MARKER.finditer(text):
        if found.start() > position:
            out.append(text[position : found.start()])
        out.append(found[0])
        position = found.end()
    if position < len(text):
        out.append(text[position:])
    return out


def is_marker(segment: str) -> bool:
    """Return whether a segment is a marker."""
    return MARKER.fullmatch(segment) is not None


def compare(left: str, right: str) -> Difference:
    """Return the difference between two texts."""
    # By segments alone, a text that ends within a segment of the other would differ in that whole segment.
    if right.startswith(left):
        return Difference(left, "", right[len(left) :], "")
    a, b = segments(left), segments(right)
    start = 0
    while start < min(len(a), len(b)) and a[start] == b[start]:
        start += 1
    end = 0
    while end < min(len(a), len(b)) - start and a[-1 - end] == b[-1 - end]:
        end += 1
    one, other = a[start : len(a) - end], b[start : len(b) - end]
    head = tail = 0
    rest_a, rest_b = "".join(one), "".join(other)
    # Only the outermost segments that are no markers are compared by characters.
    # The end is compared first, and the start only in the rest, so that no character counts twice.
    if one and other and not is_marker(one[-1]) and not is_marker(other[-1]):
        tail = _shared(rest_a[::-1], rest_b[::-1])
    if one and other and not is_marker(one[0]) and not is_marker(other[0]):
        head = _shared(rest_a[: len(rest_a) - tail], rest_b[: len(rest_b) - tail])
    return Difference(
        "".join(a[:start]) + rest_a[:head],
        rest_a[head : len(rest_a) - tail],
        rest_b[head : len(rest_b) - tail],
        rest_a[len(rest_a) - tail :] + "".join(a[len(a) - end :]),
    )


def _shared(left: str, right: str) -> int:
    count = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        count += 1
    return count
