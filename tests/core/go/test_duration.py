import pytest

from puna.go.duration import parse_duration


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("0s", 0),
        ("5m", 300 * 10**9),
        ("1h30m", 5400 * 10**9),
        ("1.5h", 5400 * 10**9),
        (".5s", 500_000_000),
        ("-1m", -60 * 10**9),
        ("+2ms", 2_000_000),
        ("3us", 3_000),
        ("3µs", 3_000),
        ("7ns", 7),
    ],
)
def test_reads_what_go_reads(text, nanoseconds):
    assert parse_duration(text) == nanoseconds


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("5", 'time: missing unit in duration "5"'),
        ("abc", 'time: invalid duration "abc"'),
        ("", 'time: invalid duration ""'),
        (".s", 'time: invalid duration ".s"'),
        ("1d", 'time: unknown unit "d" in duration "1d"'),
        ("9999999999h", 'time: invalid duration "9999999999h"'),
    ],
)
def test_refuses_with_the_words_of_go(text, error):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the text is compared whole)
        parse_duration(text)
    assert str(caught.value) == error
