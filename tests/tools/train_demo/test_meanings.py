import re

from train_demo import neighbours
from train_demo.meanings import SYNONYMS, pair
from train_demo.neighbours import Task, cosine, rare_words, recall, shared_words, tasks
from train_demo.words import Random


def _bare(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9']+", text.lower()))


def test_no_question_and_no_sentence_of_the_measure_is_trained_on() -> None:
    rng = Random("meanings")
    trained = {_bare(text) for each in (pair(rng) for _ in range(5000)) for text in (each.one, each.other)}
    asked = {_bare(text) for task in tasks() for text in task.queries}
    asked |= {_bare(text) for each in neighbours.PAIRS for text in each}
    assert trained.isdisjoint(asked)


def test_the_same_seed_makes_the_same_pairs() -> None:
    first, second = ([pair(Random(f"7/{i}")) for i in range(50)] for _ in range(2))
    assert first == second


def test_a_synonym_has_another() -> None:
    assert all(len(set(row)) == len(row) > 1 for row in SYNONYMS)
    assert len(SYNONYMS) > 100


def test_every_query_of_a_task_has_its_text() -> None:
    for task in tasks():
        assert len(task.queries) == len(task.right) >= 40
        assert all(task.queries[i] != task.texts[j] for i, j in enumerate(task.right))


def test_the_nearest_text_is_judged() -> None:
    task = Task("", ("red car", "big dog"), ("the big dog", "a red car"), (1, 0))
    assert recall(task, shared_words(task)) == 1.0
    assert recall(task, rare_words(task)) == 1.0
    assert recall(task, lambda _: [1.0, 0.0]) == 0.5
    assert cosine((1, 0), (0, 2)) == 0.0
    assert abs(cosine((1, 1), (2, 2)) - 1) < 1e-9
