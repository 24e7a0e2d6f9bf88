import sys
from types import SimpleNamespace

import pytest

from puna.cli.bench import Result, Stream, counts, picture, result
from puna.cli.errors import CommandError


def test_prefill_lasts_until_every_stream_has_a_token_and_decode_from_then_on():
    streams = [Stream((1.5, 1.7, 2.5, 3.0), 100, 4), Stream((2.0, 2.5, 3.0, 4.0), 100, 4)]
    found = result(1.0, streams)
    assert (found.streams, found.prompt_tokens, found.output_tokens) == (2, 200, 8)
    assert found.prefill == pytest.approx(200 / 1.0)
    # Two tokens of the first stream and three of the second, in two seconds.
    assert found.decode == pytest.approx(5 / 2.0)
    assert found.first_seconds == pytest.approx(1.0)


def test_answers_of_one_token_have_no_decode():
    assert result(0.0, [Stream((1.0,), 10, 1)]).decode == 0.0


def test_numbers_of_streams():
    assert counts("1, 4,16") == [1, 4, 16]
    for bad in ("", "0", "1,x", "-1", "257"):
        with pytest.raises(CommandError, match="--streams is"):
            counts(bad)


RESULTS = [Result(1, 100.0, 10.0, 0.1, 10, 10), Result(4, 50.0, 0.0, 0.1, 10, 10)]


@pytest.mark.parametrize(("encoding", "block"), [("utf-8", "█"), ("ascii", "#"), ("nosuch", "#")])
def test_the_picture_has_characters_of_the_terminal(encoding, block):
    lines = picture(RESULTS, SimpleNamespace(encoding=encoding), 80).splitlines()
    assert [line.count(block) for line in lines] == [30, 15, 0, 30, 0]
    assert lines[1].split() == ["prefill", "4", block * 15, "50.0", "tokens/s"]


def test_the_picture_fits_into_a_narrow_window():
    lines = picture(RESULTS, sys.stdout, 40).splitlines()
    assert max(map(len, lines)) == 39
    assert (lines[0].count("█"), lines[1].count("█")) == (9, 4)
