import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wcwidth import wcswidth

from puna.cli.wrapping import Wrapper

ERASED = re.compile(r"\x1b\[(\d+)D\x1b\[K")


def shown(text):
    """Carry out the movements in what was written."""
    while match := ERASED.search(text):
        start = match.start()
        text = text[: start - int(match[1])] + text[match.end() :]
    return text


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        (["one two three"], ["one two ", "three"]),
        (["one two th", "ree"], ["one two ", "three"]),
        (["one two \nthree"], ["one two ", "three"]),
        (["abcdefghijklmn"], ["abcdefghij", "klmn"]),
        (["abcdefghij klm"], ["abcdefghij", "klm"]),
        (["x abcdefghijklmn"], ["x ", "abcdefghij", "klmn"]),
    ],
)
def test_lines_break_between_words(pieces, lines):
    wrapper = Wrapper(10)
    assert shown("".join(map(wrapper.feed, pieces))).split("\n") == lines


def test_wide_characters_break_anywhere():
    wrapper = Wrapper(10)
    assert wrapper.feed("天地玄黄宇宙洪荒") == "天地玄黄宇\n宙洪荒"


@given(st.text("ab \n", max_size=80), st.integers(4, 20), st.integers(1, 9))
def test_no_line_is_too_long_and_no_letter_is_lost(text, width, step):
    wrapper = Wrapper(width)
    out = shown("".join(wrapper.feed(text[start : start + step]) for start in range(0, len(text), step)))
    assert all(wcswidth(line) <= width for line in out.split("\n"))
    assert re.sub(r"\s", "", out) == re.sub(r"\s", "", text)
