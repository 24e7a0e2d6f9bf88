import re

import pytest

from puna.go.template.lexer import Kind
from puna.go.template.literals import floating, integer, number, unquote, unquote_char


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('""', ""),
        (r'"a\n\t\\\"é"', 'a\n\t\\"é'),
        (r'"\x41\101\u00e9\U0001F600"', "AAé😀"),
        (r'"\xc3\xa9"', "é"),
        (r'"\xff"', "\udcff"),
        (r"`a\n`", r"a\n"),
        ("`a\r\nb`", "a\nb"),
    ],
)
def test_strings(text, value):
    assert unquote(text) == value


@pytest.mark.parametrize(
    "text", [r'"\q"', '"\\\'"', r'"\x4"', r'"\400"', r'"\ud800"', r'"\U00110000"', r'"\18"', r'"\xg1"']
)
def test_malformed_escapes(text):
    with pytest.raises(ValueError, match=r"^invalid syntax$"):
        unquote(text)


@pytest.mark.parametrize(("text", "value"), [("'a'", 97), ("'é'", 233), (r"'\''", 39), (r"'\xff'", 255), (r"'\n'", 10)])
def test_character_constants(text, value):
    assert unquote_char(text) == value
    node = number(3, text, Kind.CHAR_CONSTANT)
    assert (node.integer, node.unsigned, node.float, node.position) == (value, value, float(value), 3)


@pytest.mark.parametrize(
    ("text", "error"),
    [("''", "invalid syntax"), ("'ab'", "malformed character constant: 'ab'"), ("'\\\"'", "invalid syntax")],
)
def test_malformed_character_constants(text, error):
    with pytest.raises(ValueError, match=f"^{re.escape(error)}$"):
        unquote_char(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("-12", -12),
        ("+12", 12),
        ("1_000", 1000),
        ("0x1F", 31),
        ("0X_ff", 255),
        ("0b101", 5),
        ("0o17", 15),
        ("017", 15),
        ("0_17", 15),
        ("08", None),
        ("1__0", None),
        ("1_", None),
        ("0x", None),
        ("", None),
        ("1.0", None),
        ("٣", None),
    ],
)
def test_integers(text, value):
    assert integer(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.5", 1.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("-1e3", -1000.0),
        ("1_0.2_5", 10.25),
        ("0x1p-2", 0.25),
        ("0x1.8p1", 3.0),
        ("-0x_1p4", -16.0),
        ("1e400", None),
        ("0xp1", None),
        ("0x1p99999", None),
        ("abc", None),
        ("1e", None),
    ],
)
def test_floats(text, value):
    assert floating(text) == value


@pytest.mark.parametrize(
    ("text", "kind", "integer_", "unsigned", "float_", "complex_"),
    [
        ("3", Kind.NUMBER, 3, 3, 3.0, None),
        ("-3", Kind.NUMBER, -3, None, -3.0, None),
        ("-0", Kind.NUMBER, 0, 0, 0.0, None),
        ("18446744073709551615", Kind.NUMBER, None, 2**64 - 1, float(2**64 - 1), None),
        ("9223372036854775807", Kind.NUMBER, 2**63 - 1, 2**63 - 1, float(2**63 - 1), None),
        ("1e3", Kind.NUMBER, 1000, 1000, 1000.0, None),
        ("-1e3", Kind.NUMBER, -1000, None, -1000.0, None),
        ("1.5", Kind.NUMBER, None, None, 1.5, None),
        ("2i", Kind.NUMBER, None, None, None, 2j),
        ("1+2i", Kind.COMPLEX, None, None, None, 1 + 2j),
        ("1e2-3i", Kind.COMPLEX, None, None, None, 100 - 3j),
        ("7+0i", Kind.COMPLEX, 7, 7, 7.0, 7 + 0j),
    ],
)
def test_a_number_has_a_value_in_each_type_that_it_fits(text, kind, integer_, unsigned, float_, complex_):
    node = number(0, text, kind)
    assert (node.integer, node.unsigned, node.float, node.complex) == (integer_, unsigned, float_, complex_)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("1__0", 'illegal number syntax: "1__0"'),
        ("1e400", 'illegal number syntax: "1e400"'),
        ("18446744073709551616", 'integer overflow: "18446744073709551616"'),
        ("089", 'integer overflow: "089"'),
    ],
)
def test_malformed_numbers(text, error):
    with pytest.raises(ValueError, match=f"^{re.escape(error)}$"):
        number(0, text, Kind.NUMBER)
