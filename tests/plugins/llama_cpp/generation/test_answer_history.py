import pytest

from puna_llama_cpp.generation.answer_history import AnswerHistory


def texts(history, salt):
    return [token for segment in history.segments(salt) for token in segment.tokens]


def test_answers_of_a_salt_are_kept_apart():
    history = AnswerHistory(10_000)
    history.add("a", [1, 2, 3, 4])
    history.add("b", [5, 6, 7, 8])
    assert texts(history, "a") == [1, 2, 3, 4, -1]
    assert texts(history, "b") == [5, 6, 7, 8, -1]
    assert texts(history, "c") == []


def test_the_oldest_answers_are_dropped_when_it_is_full():
    history = AnswerHistory(8_000)
    for number in range(1000):
        history.add("a", [number] * 100)
        assert history.size <= 8_000
    kept = {token for token in texts(history, "a") if token >= 0}
    assert kept == set(range(min(kept), 1000))
    assert len(kept) > 50


def test_many_salts_share_the_room():
    history = AnswerHistory(8_000)
    for number in range(1000):
        history.add(str(number), [number] * 10)
        assert history.size <= 8_000
    assert not texts(history, "0")
    assert texts(history, "999")
    assert len(history._segments) < 200


def test_the_end_of_a_very_long_answer_is_kept():
    history = AnswerHistory(8_000)
    history.add("a", list(range(50_000)))
    assert texts(history, "a")[-2:] == [49_999, -1]
    assert history.size <= 8_000


@pytest.mark.parametrize("limit", [0, 1, 100])
def test_a_small_limit_keeps_nothing(limit):
    history = AnswerHistory(limit)
    history.add("a", [1, 2, 3, 4])
    assert texts(history, "a") == []
    assert history.size == 0
