"""Searching a text that grows for markers, of which the end of the text may hold the beginning."""

from collections.abc import Sequence


def overlap(text: str, marker: str) -> int:
    """Return how many characters at the end of `text` could be the start of `marker`."""
    # The longest overlap counts: a marker may contain its own beginning twice.
    return next((n for n in range(min(len(text), len(marker)), 0, -1) if text.endswith(marker[:n])), 0)


def first_of(markers: Sequence[str], text: str) -> tuple[int, str]:
    """Return where the first of the markers begins in `text`, and which one it is; (-1, "") without one.

    Where two begin at the same place, the first in alphabetical order counts. Empty markers do not count.
    """
    places = [(text.find(marker), marker) for marker in markers if marker]
    return min((place for place in places if place[0] >= 0), default=(-1, ""))


def first_or_certain(markers: Sequence[str], text: str) -> tuple[int, str]:
    """Return the same; without a marker, the length of the beginning of `text` that can hold no part of one, and ""."""
    at, marker = first_of(markers, text)
    if marker:
        return at, marker
    # Any marker may be the next one, so the longest doubt decides how much is held back.
    return len(text) - max((overlap(text, each) for each in markers), default=0), ""
