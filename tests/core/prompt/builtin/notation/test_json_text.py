import re

import pytest

from puna.prompt.builtin.notation import json_text


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{bad", "invalid character 'b' looking for beginning of object key string"),
        ("{}<", "invalid character '<' after top-level value"),
        ('{"a" 1}', "invalid character '1' after object key"),
        ('{"a":1 2}', "invalid character '2' after object key:value pair"),
        ("[1 2]", "invalid character '2' after array element"),
        ('{"a":', "unexpected end of JSON input"),
        ('"a\nb"', "invalid character '\\n' in string literal"),
        ('"\\q"', "invalid character 'q' in string escape code"),
        ('"\\u12x"', "invalid character 'x' in \\u hexadecimal character escape"),
        ("trux", "invalid character 'x' in literal true (expecting 'e')"),
        ("-x", "invalid character 'x' in numeric literal"),
        ("1.x", "invalid character 'x' after decimal point in numeric literal"),
        ("1ex", "invalid character 'x' in exponent of numeric literal"),
        ("NaN", "invalid character 'N' looking for beginning of value"),
    ],
)
def test_what_is_no_json_is_refused_in_gos_words(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(error)}$"):
        json_text.read(text)


def test_numbers_are_floats_and_those_beyond_their_range_an_error() -> None:
    assert json_text.read("[1, 2.5]") == [1.0, 2.5]
    with pytest.raises(ValueError, match=r"^json: cannot unmarshal number 1e999 into Go value of type float64$"):
        json_text.read("[1e999, 2]")


def test_null_arguments_are_none_and_others_than_objects_an_error() -> None:
    assert json_text.read_arguments("null") == {}
    with pytest.raises(ValueError, match="can't find closing"):
        json_text.read_arguments("[1]")


def test_nesting_that_python_cannot_follow_is_refused_as_go_refuses_more() -> None:
    with pytest.raises(ValueError, match="exceeded max depth"):
        json_text.read("[" * 100_000)
