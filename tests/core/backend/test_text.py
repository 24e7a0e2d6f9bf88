import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.backend.text import TextAssembly, complete_length, held_length


def sent(assembly, *tokens):
    return [assembly.feed(token) for token in tokens]


def test_text_without_stops_passes_at_once():
    assert sent(TextAssembly(), b"Why", b" not", b"?") == ["Why", " not", "?"]


def test_half_a_character_waits_with_all_before_it():
    smile = "🙂".encode()
    assert sent(TextAssembly(), b"a" + smile[:2], smile[2:3], smile[3:]) == ["", "", "a🙂"]


def test_half_a_character_at_the_end_is_dropped():
    assembly = TextAssembly()
    assert sent(assembly, b"ok", "é".encode()[:1]) == ["ok", ""]
    assert assembly.finish() == ""


def test_bytes_that_are_no_utf8_are_replaced():
    assert sent(TextAssembly(), b"\xff!") == ["�!"]


def test_a_stop_string_over_tokens_is_never_sent():
    assembly = TextAssembly(["STOP"])
    assert sent(assembly, b"go S", b"TO", b"P and on") == ["", "", "go "]
    assert assembly.stop_sequence == "STOP"


def test_what_only_began_like_a_stop_string_comes_whole():
    assembly = TextAssembly(["STOP"])
    assert sent(assembly, b"ST", b"ART") == ["", "START"]
    assert assembly.stop_sequence == ""


def test_what_is_held_back_comes_when_the_model_ends():
    assembly = TextAssembly(["STOP"])
    assert sent(assembly, b"a ST") == [""]
    assert assembly.finish() == "a ST"
    assert assembly.finish() == ""


def test_the_earliest_stop_string_wins_then_the_first_given():
    assembly = TextAssembly(["later", "b", "bc"])
    assert sent(assembly, b"abc later") == ["a"]
    assert assembly.stop_sequence == "b"


def test_a_stop_string_before_half_a_character_waits_for_the_rest_of_it():
    assembly = TextAssembly(["."])
    assert sent(assembly, b"a." + "é".encode()[:1], "é".encode()[1:]) == ["", "a"]
    assert assembly.stopped


def test_all_that_waits_is_lost_if_the_model_ends_inside_a_character():
    assembly = TextAssembly(["STOP"])
    assert sent(assembly, b"a ST", "é".encode()[:1]) == ["", ""]
    assert assembly.finish() == ""


def test_an_empty_stop_string_stops_at_once():
    assembly = TextAssembly(["", "x"])
    assert sent(assembly, b"a") == [""]
    assert (assembly.stopped, assembly.stop_sequence) == (True, "")


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
        (b"\xe2Y", 0),  # only the number of bytes counts, as in Ollama
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
        (b"one XYZ", [b"XYZ"], 0),  # `feed` finds whole ones
        (b"aa", [b"aab"], 2),
        (b"abab", [b"abc", b"babx"], 3),
        (b"abc", [b""], 0),
    ],
)
def test_the_longest_beginning_of_a_stop_string_is_held(data, stops, length):
    assert held_length(data, stops) == length


def test_everything_before_what_might_become_a_stop_string_waits_too():
    assert sent(TextAssembly(["XYZ"]), b"one X", b" two") == ["", "one X two"]


@given(st.text(), st.lists(st.text("abé", min_size=1, max_size=3)), st.data())
def test_cutting_into_tokens_changes_nothing(text, stops, data):
    raw, assembly, out = text.encode("utf-8", "replace"), TextAssembly(stops), ""
    while raw and not assembly.stopped:
        size = data.draw(st.integers(1, len(raw)))
        out += assembly.feed(raw[:size])
        raw = raw[size:]
    out += "" if assembly.stopped else assembly.finish()
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    if assembly.stopped:
        assert not any(stop in out for stop in stops)
        assert text.startswith(out + assembly.stop_sequence)
    else:
        assert not places
        assert out == text
