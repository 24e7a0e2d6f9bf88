import pytest
from tests.core.prompt.builtin.reading import GET, held_back, read

from puna.prompt.builtin.lfm2_answer import read_calls

CALL = "<|tool_call_start|>[get(city='Oslo', days=2)]<|tool_call_end|>"


def test_thinking_content_and_calls_are_read() -> None:
    assert read("lfm2-thinking", f"<think> Hm </think> Look. {CALL} Done") == ("Hm", "Look.Done", [GET])


def test_thinking_is_optional_and_only_read_from_models_that_think() -> None:
    assert read("lfm2-thinking", "Yes") == ("", "Yes", [])
    assert read("lfm2", "<think>Hm</think>") == ("", "<think>Hm</think>", [])


def test_nothing_comes_out_after_calls_that_cannot_be_read() -> None:
    assert read("lfm2", f"a<|tool_call_start|>oops<|tool_call_end|>b{CALL}") == ("", "a", [])


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("f()", [("f", {})]),
        ("[f(a=1), g(b=True)]", [("f", {"a": 1}), ("g", {"b": True})]),
        (r"""f(a="x\"y, (", b='\n')""", [("f", {"a": r"x\"y, (", "b": r"\n"})]),
        ("f(a={'b': [1, None]}, c=word)", [("f", {"a": {"b": [1.0, None]}, "c": "word"})]),
    ],
)
def test_values_are_those_of_python_and_a_quoted_text_keeps_its_backslashes(text: str, calls: object) -> None:
    assert read_calls(text) == calls


@pytest.mark.parametrize("text", ["", "f", "f(", "f(1)", "f(a=)", "f(a='x)"])
def test_other_texts_are_no_calls(text: str) -> None:
    with pytest.raises(ValueError, match=r"^no "):
        read_calls(text)


def test_thinking_holds_back_what_could_be_its_end() -> None:
    assert held_back("lfm2-thinking", "<think>") == "<think>"
    assert read("lfm2-thinking", "<think>a </th", "ink>b") == ("a", "b", [])
