import pytest
from tests.core.prompt.builtin.reading import GET, held_back, read

from puna.errors import BackendFailedError


def test_thinking_content_and_calls_are_read() -> None:
    call = '[TOOL_CALLS]get[ARGS]{"city": "Oslo", "days": 2}'
    assert read("ministral", "[THINK]Hm[/THINK]", f" Look. {call}Done") == ("Hm", " Look.Done", [GET])


def test_a_call_counts_before_a_thought_in_the_same_text_as_in_ollama() -> None:
    assert read("ministral", "[THINK]Hm[/THINK][TOOL_CALLS]get[ARGS]{}") == ("", "[THINK]Hm[/THINK]", [("get", "{}")])


def test_brackets_in_strings_do_not_end_the_object() -> None:
    assert read("ministral", '[TOOL_CALLS]get[ARGS]{"city": "}\\"]"', "}")[2] == [("get", '{"city":"}\\"]"}')]


def test_an_unknown_tool_is_an_error() -> None:
    with pytest.raises(BackendFailedError, match=r"^tool 'put' not found$"):
        read("ministral", "[TOOL_CALLS]put[ARGS]{}")


def test_content_holds_back_white_space_and_what_could_be_a_marker() -> None:
    assert held_back("ministral", "a \n") == " \n"
    assert held_back("ministral", "a [TOOL") == " [TOOL"
