"""The measure of llamita-embed: whether the nearest text has the same meaning, beside two measures that see words only.

No text here is trained on. ``Task.queries[i]`` belongs to ``Task.texts[Task.right[i]]``.
"""

import math
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from train_demo import cases
from train_demo.facts import CAPITALS, FACTS

PAIRS: list[list[str]] = tomllib.loads(Path(__file__).with_name("held_out_embedding.toml").read_text())["pairs"]
Vector = Sequence[float]


@dataclass(frozen=True, slots=True)
class Task:
    """Texts to search, queries, and for each query the index of the one text of its meaning."""

    name: str
    queries: tuple[str, ...]
    texts: tuple[str, ...]
    right: tuple[int, ...]


def _paired(name: str, pairs: Sequence[tuple[str, str]]) -> Task:
    return Task(name, tuple(a for a, _ in pairs), tuple(b for _, b in pairs), tuple(range(len(pairs))))


def tasks() -> list[Task]:
    """Build the three tasks: a question by another question, a question by its answer, everyday sentences."""
    forms = cases.CAPITAL_QUESTIONS
    questions = [tuple(cases.FACT_QUESTIONS[fact.topic][:2]) for fact in FACTS]
    questions += [
        (forms[i % len(forms)].format(c=c), forms[(i + 1 + i // 6 % 5) % len(forms)].format(c=c))
        for i, c in enumerate(CAPITALS)
    ]
    pairs = [(a, b) for a, b in questions]
    answers = [fact.answer for fact in FACTS] + [f"The capital of {c} is {city}." for c, city in CAPITALS.items()]
    both = [(question, number) for number, pair in enumerate(pairs) for question in pair]
    return [
        _paired("the same question", pairs),
        Task("the answer", tuple(q for q, _ in both), tuple(answers), tuple(n for _, n in both)),
        _paired("everyday sentences", [(a, b) for a, b in PAIRS]),
    ]


def recall(task: Task, similarities: Callable[[int], Sequence[float]]) -> float:
    """The share of queries whose most similar text is the right one; of equals the first counts.

    ``similarities(i)`` are the similarities of query ``i`` to all texts.
    """
    found = (max(range(len(row)), key=row.__getitem__) for row in map(similarities, range(len(task.queries))))
    return sum(a == b for a, b in zip(found, task.right, strict=True)) / len(task.right)


def cosine(a: Vector, b: Vector) -> float:
    """The cosine of two vectors."""
    lengths = math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0


def words(text: str) -> set[str]:
    """The words of a text in lower case."""
    return set(re.findall(r"[a-z0-9']+", text.lower()))


def shared_words(task: Task) -> Callable[[int], list[float]]:
    """Similarity as the share of words that two texts have in common (Jaccard)."""
    texts = [words(text) for text in task.texts]

    def similarities(query: int) -> list[float]:
        asked = words(task.queries[query])
        return [len(asked & text) / (len(asked | text) or 1) for text in texts]

    return similarities


def rare_words(task: Task) -> Callable[[int], list[float]]:
    """Similarity as the cosine of words weighted by how rare they are among the texts (tf-idf)."""
    texts = [words(text) for text in task.texts]
    count = Counter(word for text in texts for word in text)
    weight = {word: math.log((1 + len(texts)) / (1 + n)) + 1 for word, n in count.items()}
    lengths = [math.sqrt(sum(weight[word] ** 2 for word in text)) or 1.0 for text in texts]

    def similarities(query: int) -> list[float]:
        asked = words(task.queries[query])
        return [sum(weight[w] ** 2 for w in asked & text) / size for text, size in zip(texts, lengths, strict=True)]

    return similarities
