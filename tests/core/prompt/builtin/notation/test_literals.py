import pytest

from puna.prompt.builtin.notation.literals import at_commas, number


@pytest.mark.parametrize(
    ("text", "value"),
    [("12", 12), ("-1.5", -1.5), ("+3", 3), ("1e3", 1000.0), (str(2**63), float(2**63)), ("x", None), ("\u0661", None)],
)
def test_a_number_is_an_integer_of_64_bits_or_a_float(text: str, value: object) -> None:
    assert number(text) == value
    assert type(number(text)) is type(value)


def test_commas_in_brackets_and_quotes_do_not_count() -> None:
    assert list(at_commas('a, f(b, [c, d]), \'e, f\', {g: "h, \\""}')) == [
        "a",
        " f(b, [c, d])",
        " 'e, f'",
        ' {g: "h, \\""}',
    ]


def test_a_backslash_may_be_an_ordinary_character() -> None:
    assert list(at_commas(r"'a\', b", escapes=False)) == [r"'a\'", " b"]
    assert list(at_commas(r"'a\', b")) == [r"'a\', b"]
