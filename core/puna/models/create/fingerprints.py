"""Fingerprints of chat templates: how near a text comes to a template whose text is not kept.

Ollama holds the texts of widely spread chat templates and takes the one whose Levenshtein distance to a model's own
template is least and below 100. Puna has fingerprints of these texts instead and estimates the distance.

A fingerprint divides a template into segments: each Jinja tag is one, and so is each stretch of text between tags. A
segment is stored as the multiset of its words, each as 24 bits of a hash and a length. A word is a run of letters and
digits, or one other character. The order of the words inside a segment is lost, and so is their spelling.

The estimate combines two figures:

- The bag distance counts the characters of the words that only one of the two texts has, and takes the larger of both
  sides. It ignores order, so reordered text looks too near.
- The segment distance aligns the two lists of segments by dynamic programming. Dropping a segment costs its length,
  replacing one costs the bag distance of the two. It knows the order, but a segment that was split or joined looks too
  far.

The estimate is one third of the first and two thirds of the second. Both count a changed letter as a changed word, so
single letters that change all over a text look farther than they are. A text that equals a template has distance 0.

`tools/fingerprint_templates.py` computes `fingerprints.json` from a checkout of Ollama.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final, TypeAlias

FILE_NAME: Final = "fingerprints.json"
_SEGMENT: Final = re.compile(r"\{%.*?%\}|\{\{.*?\}\}|[^{]+|\{", re.DOTALL)
_WORD: Final = re.compile(r"[A-Za-z0-9_]+|.", re.DOTALL)
_HASH_BYTES: Final = 3
_LONGEST_WORD: Final = 255
"""Characters of a word that are counted: its length is stored in one byte."""
_ALIGNMENT_LIMIT: Final = 3
"""The segment distance is not followed beyond this multiple of the limit, where the estimate cannot be below it."""

Words: TypeAlias = Counter[bytes]
"""A multiset of words, each as its hash and a byte that holds its length."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The fingerprint of one template."""

    name: str
    """The template's name in Ollama. Several spellings of a template share it."""
    digest: str
    """SHA-256 of the text in UTF-8, in hexadecimal digits."""
    length: int
    """Characters of the text."""
    segments: tuple[Words, ...]

    @classmethod
    def of(cls, name: str, text: str) -> "Fingerprint":
        """Compute the fingerprint of a text."""
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        return cls(name, digest, len(text), tuple(_words(segment) for segment in _SEGMENT.findall(text)))

    @property
    def words(self) -> Words:
        """The words of all segments."""
        total: Words = Counter()
        for segment in self.segments:
            total.update(segment)
        return total

    def distance(self, other: "Fingerprint", limit: float) -> float:
        """Estimate the Levenshtein distance of the two texts. Return `limit` if the estimate is not less."""
        if self.digest == other.digest:
            return 0.0
        # A difference in length is a lower bound of the distance and costs nothing.
        if abs(self.length - other.length) >= limit:
            return limit
        # The bag distance is far cheaper than the alignment, so it decides first.
        bag = _bag_distance(self.words, other.words)
        if bag >= limit:
            return limit
        aligned = _segment_distance(self.segments, other.segments, int(limit * _ALIGNMENT_LIMIT))
        return min((bag + 2 * aligned) / 3, limit)


def nearest(text: str, known: Sequence[Fingerprint], limit: float) -> str | None:
    """Return the name of the fingerprint nearest to a text; None if no estimate is below `limit`.

    Of equally near ones the first counts. The cost is bounded by the known templates' lengths, however long the text.
    """
    # A text of any length is refused here without being hashed.
    if all(abs(each.length - len(text)) >= limit for each in known):
        return None
    own = Fingerprint.of("", text)
    best: str | None = None
    for each in known:
        estimate = each.distance(own, limit)
        if estimate < limit:
            # The limit falls to the best estimate, which ends most later comparisons early.
            best, limit = each.name, estimate
    return best


@cache
def load() -> tuple[Fingerprint, ...]:
    """Read the fingerprints of the known templates, in Ollama's order, which decides between equally near ones."""
    return loads(files("puna.models.create").joinpath(FILE_NAME).read_text())


def loads(text: str) -> tuple[Fingerprint, ...]:
    """Read fingerprints from JSON."""
    return tuple(
        Fingerprint(each["name"], each["sha256"], each["length"], tuple(map(_unpacked, each["segments"])))
        for each in json.loads(text)["templates"]
    )


def dumps(known: Sequence[Fingerprint], source: str) -> str:
    """Write fingerprints as JSON. `source` says where the texts are from."""
    templates: list[dict[str, Any]] = [
        {"name": each.name, "sha256": each.digest, "length": each.length, "segments": [*map(_packed, each.segments)]}
        for each in known
    ]
    return json.dumps({"source": source, "templates": templates}, indent=1) + "\n"


def _words(segment: str) -> Words:
    return Counter(
        # surrogatepass: the text of an untrusted file may hold lone surrogates.
        hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES).digest()
        + bytes([min(len(word), _LONGEST_WORD)])
        for word in _WORD.findall(segment)
    )


def _packed(words: Words) -> str:
    # Sorted, so that equal multisets give equal texts and the file changes only where a template did.
    return b"".join(sorted(words.elements())).hex()


def _unpacked(text: str) -> Words:
    data = bytes.fromhex(text)
    width = _HASH_BYTES + 1
    return Counter(data[start : start + width] for start in range(0, len(data), width))


def _length(words: Words) -> int:
    return sum(word[_HASH_BYTES] * count for word, count in words.items())


def _bag_distance(one: Words, other: Words) -> int:
    return max(_length(one - other), _length(other - one))


def _segment_distance(one: Sequence[Words], other: Sequence[Words], limit: int) -> int:
    """Return the least cost of turning one list of segments into the other, or `limit` if it is not less."""
    # Common segments at both ends cost nothing to align, and the rest is quadratic.
    start = 0
    shortest = min(len(one), len(other))
    while start < shortest and one[start] == other[start]:
        start += 1
    end = 0
    while end < shortest - start and one[-1 - end] == other[-1 - end]:
        end += 1
    one, other = one[start : len(one) - end], other[start : len(other) - end]
    lengths = [_length(words) for words in other]
    before = [0]
    for length in lengths:
        before.append(before[-1] + length)
    for words in one:
        dropped = _length(words)
        now = [before[0] + dropped]
        for column, length in enumerate(lengths):
            cost = min(before[column + 1] + dropped, now[column] + length)
            if before[column] < min(cost, limit):
                cost = min(cost, before[column] + _bag_distance(words, other[column]))
            now.append(cost)
        before = now
        # Costs never fall from row to row, so the result cannot come below the limit any more.
        if min(before) >= limit:
            return limit
    return min(before[-1], limit)
