import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.models.create.distance import distance


def plain(one, other):
    before = list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        now = [row]
        for column, other_letter in enumerate(other, 1):
            now.append(min(before[column] + 1, now[-1] + 1, before[column - 1] + (letter != other_letter)))
        before = now
    return before[-1]


@pytest.mark.parametrize(
    ("one", "other", "edits"), [("", "", 0), ("kitten", "sitting", 3), ("abc", "", 3), ("A", "a", 1)]
)
def test_edits_are_counted(one, other, edits):
    assert distance(one, other, 100) == edits


@settings(max_examples=200, deadline=None)
@given(st.text("ab c", max_size=30), st.text("ab c", max_size=30), st.integers(1, 12))
def test_it_is_the_plain_distance_below_the_limit(one, other, limit):
    assert distance(one, other, limit) == min(plain(one, other), limit)


def test_long_texts_far_apart_cost_little():
    assert distance("a" * 5000, "b" * 5050, 100) == 100
