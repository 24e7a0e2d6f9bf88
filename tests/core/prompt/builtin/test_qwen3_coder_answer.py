import pytest

from puna.errors import BackendFailedError
from puna.prompt.builtin.qwen3_coder_answer import read_call, typed, typed_exactly


@pytest.mark.parametrize(
    ("raw", "types", "value"),
    [
        ("\n1\n", ["integer"], 1),
        ("x", ["integer"], "x"),
        ("2.0", ["number"], 2),
        ("maybe", ["boolean"], False),
        ("TRUE", ["boolean", "string"], True),
        ("NULL", ["string"], None),
        ("[1]", ["array"], [1]),
        ("{", ["object"], "{"),
        ("1", [], "1"),
    ],
)
def test_values_take_the_type_that_the_schema_says(raw: str, types: list[str], value: object) -> None:
    assert typed(raw, types) == value


def test_one_line_end_on_each_side_belongs_to_the_notation() -> None:
    assert typed("\n\nx\n\n", ["string"]) == "\nx\n"
    assert typed_exactly("\nx\n", ["string"]) == "\nx\n"


def test_markup_in_an_argument_stays_text() -> None:
    call = "<function=get><parameter=html>\n<b>x</b>\n</parameter></function>"
    assert read_call(call, []) == ("get", {"html": "<b>x</b>"})


def test_a_call_without_its_end_is_an_error_in_go_s_words() -> None:
    with pytest.raises(BackendFailedError, match=r"^XML syntax error on line 2: unexpected EOF$"):
        read_call("<function=get>\n", [])
