"""From conversations to rows of tokens: what is learned, where a document ends, positions with gaps."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train_demo.conversation import Conversation, Segment, segments
from train_demo.skills import conversation
from train_demo.vocabulary import BOS, EOS, Vocabulary
from train_demo.words import Random

Rows = dict[str, NDArray[np.int32]]
CHUNK = 3000  # conversations that are packed together
LONGEST_GAP = 1400


@dataclass(frozen=True, slots=True)
class Document:
    """One tokenized conversation; ``targets[i]`` follows ``tokens[i]`` and counts ``weights[i]`` times."""

    tokens: list[int]
    targets: list[int]
    weights: list[int]


def document(vocabulary: Vocabulary, made: Conversation) -> Document:
    """Tokenizes a conversation; an end token is the target after everything the model says."""
    tokens = [BOS, *vocabulary.encode(" ")]
    learned = [0] * len(tokens)
    ends: set[int] = set()
    for segment in segments(made):
        ids = vocabulary.encode(segment.text)
        tokens += ids
        learned += _weights(vocabulary, ids, segment) if segment.learned else [0] * len(ids)
        if segment.learned:
            ends.add(len(tokens) - 1)
    targets = [EOS if i in ends else tokens[min(i + 1, len(tokens) - 1)] for i in range(len(tokens))]
    weights = [1 if i in ends else learned[min(i + 1, len(tokens) - 1)] for i in range(len(tokens))]
    return Document(tokens, targets, weights)


def _weights(vocabulary: Vocabulary, ids: list[int], segment: Segment) -> list[int]:
    """1 for a token, 3 for a digit or a boolean, 0 in the first occurrences of the hidden strings."""
    texts = (vocabulary.pieces[index].text for index in ids)
    weights = [3 if text.isdigit() or text in {"true", "false"} else 1 for text in texts]
    if not segment.hidden:
        return weights
    covered = [False] * len(segment.text)
    for part in segment.hidden:
        start = segment.text.find(part)
        covered[start : start + len(part)] = [True] * len(part)
    out, at = [], 0
    for index, weight in zip(ids, weights, strict=True):
        size = len(vocabulary.decode([index]))
        out.append(0 if any(covered[at : at + size]) else weight)
        at += size
    return out


def packed(vocabulary: Vocabulary, seed: int, length: int, start: int = 0) -> Iterator[Rows]:
    """Endless rows [length], chunk after chunk; chunk ``i`` depends on ``seed`` and ``i`` alone."""
    chunk = start
    pieces = [
        p.text for p in vocabulary.pieces if p.kind == 1 and len(p.text) > 1 and p.text.isalpha() and p.text.islower()
    ]
    while True:
        rng = Random(f"{seed}/{chunk}")
        rng.pieces = pieces
        documents = [document(vocabulary, conversation(rng)) for _ in range(CHUNK)]
        rows: list[list[Document]] = []
        room: list[list[int]] = [[] for _ in range(length + 1)]  # rows by the tokens that still fit
        for made in sorted(documents, key=lambda d: -len(d.tokens)):
            size = len(made.tokens)
            if size > length:
                continue
            left = next((n for n in range(size, length + 1) if room[n]), None)
            if left is None:
                rows.append([made])
                room[length - size].append(len(rows) - 1)
            else:
                index = room[left].pop()
                rows[index].append(made)
                room[left - size].append(index)
        rng.shuffle(rows)
        for row in rows:
            yield _row(rng, row, length)
        chunk += 1


def _row(rng: Random, row: list[Document], length: int) -> Rows:
    out = {name: np.zeros(length, np.int32) for name in ("tokens", "targets", "weights", "positions", "documents")}
    at = 0
    for number, made in enumerate(row, 1):
        size = len(made.tokens)
        here = slice(at, at + size)
        positions = np.arange(size)
        if rng.random() < 0.15:  # far apart, as in a long chat, without paying for the tokens in between
            for _ in range(rng.choice((1, 2))):
                positions[rng.randrange(2, size) :] += rng.randrange(LONGEST_GAP // 2)
        out["tokens"][here], out["targets"][here], out["weights"][here] = made.tokens, made.targets, made.weights
        out["positions"][here], out["documents"][here] = positions, number
        at += size
    return out
