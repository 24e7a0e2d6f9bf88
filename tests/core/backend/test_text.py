from hypothesis import given
from hypothesis import strategies as st

from puna.backend.text import TextAssembly


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


def test_a_stop_string_before_half_a_character_counts_at_once():
    assembly = TextAssembly(["."])
    assert sent(assembly, b"a." + "é".encode()[:1]) == ["a"]


def test_empty_stop_strings_mean_nothing():
    assert sent(TextAssembly(["", "x"]), b"a") == ["a"]


@given(st.text(), st.lists(st.text("ab", min_size=1, max_size=3)), st.data())
def test_cutting_into_tokens_changes_nothing(text, stops, data):
    raw, assembly, out = text.encode("utf-8", "replace"), TextAssembly(stops), ""
    while raw and not assembly.stop_sequence:
        size = data.draw(st.integers(1, len(raw)))
        out += assembly.feed(raw[:size])
        raw = raw[size:]
    out += assembly.finish()
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    if assembly.stop_sequence:
        assert not any(stop in out for stop in stops)
        assert text.startswith(out + assembly.stop_sequence)
    else:
        assert not places
        assert out == text
