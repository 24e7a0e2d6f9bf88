import pytest

from puna.prompt.jinja.comparison import Difference, compare, is_marker, segments


def test_segments_are_markers_and_the_texts_between_them():
    assert segments("a<b>c[d]") == ["a", "<b>", "c", "[d]"]
    assert [is_marker(each) for each in segments("a<b>")] == [False, True]


def test_markers_with_the_same_beginning_differ_from_their_first_character():
    assert compare("x<think>y", "x<tool>y") == Difference("x", "<think>", "<tool>", "y")


def test_texts_between_markers_are_compared_by_characters():
    assert compare("<a>one two<b>", "<a>one four<b>") == Difference("<a>one ", "two", "four", "<b>")


@pytest.mark.parametrize("texts", [("", ""), ("a", "a<b>"), ("<a>b", "c<a>"), ("ab", "ba")])
def test_the_parts_of_a_difference_make_the_texts_again(texts):
    found = compare(*texts)
    assert (found.prefix + found.left + found.suffix, found.prefix + found.right + found.suffix) == texts
