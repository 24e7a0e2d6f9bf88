import pytest
from tests.core.prompt.builtin.reading import GET, held_back, read

from puna.messages import Message
from puna.prompt.builtin.olmo3_answer import read_calls

CALLS = '<function_calls>get(city="Oslo", days=2)\nget(city="Oslo", days=2)</function_calls>'


def test_content_and_calls_are_read() -> None:
    assert read("olmo3", f"Look. {CALLS}") == ("", "Look. ", [GET, GET])


def test_a_block_with_a_line_that_is_no_call_is_dropped() -> None:
    assert read("olmo3", CALLS.replace("\nget(", "\nget it(")) == ("", "", [])


def test_the_text_after_a_block_is_content_whatever_it_says() -> None:
    assert read("olmo3", f"{CALLS}{CALLS}") == ("", CALLS, [GET, GET])


def test_the_models_that_think_begin_with_it_unless_the_conversation_began_the_answer() -> None:
    assert read("olmo3-think", "Hm </think> Yes") == ("Hm", "Yes", [])
    assert read("olmo3-think", " upon", last=Message(role="assistant", content="Once")) == ("", " upon", [])


@pytest.mark.parametrize(
    ("value", "read_as"),
    [
        (r'"a\n\"b"', 'a\n"b'),
        ("None", None),
        ("-2.5", -2.5),
        ("[1, 'x', [true]]", [1, "x", [True]]),
        ("{'a': 1, b: \"c\"}", {"a": 1, "b": "c"}),
        ("word", "word"),
    ],
)
def test_values_are_those_of_python(value: str, read_as: object) -> None:
    assert read_calls(f"f(a={value})") == [("f", {"a": read_as})]


def test_the_start_of_a_block_is_held_back() -> None:
    assert held_back("olmo3", "a <function_") == "<function_"
