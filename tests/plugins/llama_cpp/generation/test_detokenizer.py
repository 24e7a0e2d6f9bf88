from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna_llama_cpp.generation.detokenizer import TextOutput, complete_length, held_length


def pushed(pieces, stops=(), ended=True):
    """What is sent of pieces, one by one, and the stop string found."""
    output, sent = TextOutput(stops), []
    for number, piece in enumerate(pieces):
        text, stop = output.push(piece, last=ended and number == len(pieces) - 1)
        sent.append(text)
        if stop is not None:
            return sent, stop
    return sent, None


@pytest.mark.parametrize(
    ("data", "length"),
    [
        (b"", 0),
        (b"a", 1),
        ("é".encode(), 2),
        (b"a\xc3", 1),
        (b"a\xe2\x82", 1),
        (b"\xf0\x9f\x98", 0),
        ("a😀".encode(), 5),
        (b"\xff", 1),  # never the beginning of a character: nothing to wait for
        (b"\x80\x80\x80\x80", 4),
        (b"\xe2Y", 0),  # the reference counts bytes only
        (b"\xe2YZ", 3),
    ],
)
def test_unfinished_characters_are_cut_off(data, length):
    assert complete_length(data) == length


@pytest.mark.parametrize(
    ("data", "stops", "length"),
    [
        (b"one X", [b"XYZ"], 1),
        (b"one XY", [b"XYZ"], 2),
        (b"one XYZ", [b"XYZ"], 0),  # whole ones are found elsewhere
        (b"aa", [b"aab"], 2),
        (b"abab", [b"abc", b"babx"], 3),
        (b"abc", [b""], 0),
    ],
)
def test_the_longest_beginning_of_a_stop_string_is_held(data, stops, length):
    assert held_length(data, stops) == length


def test_a_character_waits_for_its_last_byte():
    assert pushed([b"a", b"\xf0\x9f", b"\x98", b"\x80", b"b"]) == (["a", "", "", "😀", "b"], None)


def test_held_text_is_released_as_a_whole_when_it_goes_on_otherwise():
    assert pushed([b"one ", b"XY", b"W two"], ["XYZ"]) == (["one ", "", "XYW two"], None)


def test_everything_before_what_might_become_a_stop_string_waits_too():
    assert pushed([b"one X", b" two"], ["XYZ"]) == (["", "one X two"], None)


def test_the_earliest_stop_string_wins_and_is_not_sent():
    assert pushed([b"a XY and Z"], ["Z", "XY"]) == (["a "], "XY")


def test_the_last_token_releases_what_was_held():
    assert pushed([b"one X", b""], ["XYZ"]) == (["", "one X"], None)


def test_text_held_at_the_token_limit_is_lost():
    assert pushed([b"one ", b"XY"], ["XYZ"], ended=False) == (["one ", ""], None)


def test_an_empty_stop_string_stops_at_once():
    assert pushed([b"Hello"], [""]) == ([""], "")


@given(
    st.text(alphabet="aXYZé😀", max_size=30),
    st.lists(st.integers(0, 60), max_size=8),
    st.sampled_from(["XYZ", "XX", "éa"]),
)
def test_however_a_text_is_cut_the_same_is_sent(text, cuts, stop):
    data = text.encode()
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[start:end] for start, end in pairwise(edges)] or [b""]
    sent, found = pushed(pieces, [stop])
    before, is_there, _ = text.partition(stop)
    assert "".join(sent) == before
    assert found == (stop if is_there else None)
