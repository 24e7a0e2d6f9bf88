import pytest
from tests.core.prompt.builtin.reading import GET, held_back, read

from puna.errors import BackendFailedError
from puna.prompt.builtin.glimmer_answer import read_call

CALL = (
    '<atem:function_calls>\n<atem:invoke name="get">\n<atem:parameter name="city">Oslo</atem:parameter>\n'
    '<atem:parameter name="days">2</atem:parameter>\n</atem:invoke>\n</atem:function_calls>'
)


def test_the_recipient_of_a_message_tells_what_it_is() -> None:
    answer = f" to=self<|message|>Hm<|eom|><|start|>assistant to=get<|message|>{CALL}<|eot|>"
    assert read("glimmer", answer) == ("Hm", "", [GET])
    assert read("glimmer", " to=user<|message|>Yes<|eot|>") == ("", "Yes", [])


def test_a_body_ends_where_a_header_to_a_known_recipient_follows() -> None:
    answer = " to=self<|message|>Hm<|start|>assistant to=user<|message|>Yes<|eot|>"
    assert read("glimmer", answer) == ("Hm", "Yes", [])


def test_thoughts_are_dropped_where_thinking_is_off() -> None:
    assert read("glimmer", " to=self<|message|>Hm<|eom|>", think=False) == ("", "", [])


def test_a_call_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(BackendFailedError, match=r"^parse Glimmer call to get: missing ATEM function_calls wrapper$"):
        read("glimmer", " to=get<|message|>get it<|eot|>")


def test_a_body_holds_back_what_could_be_its_end_or_the_next_message() -> None:
    assert held_back("glimmer", "<|message|>") == "<|message|>"
    assert read("glimmer", " to=user<|message|>a<|e", "om|>") == ("", "a", [])


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("<atem:function_calls></atem:function_calls>", "missing ATEM invoke wrapper"),
        (CALL.replace('"get"', 'get"x"'), "missing ATEM invoke wrapper"),
        (CALL.replace("<atem:parameter name", "<atem:oops name"), "malformed ATEM parameter"),
    ],
)
def test_a_malformed_call_is_refused_with_ollama_s_text(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        read_call(text)
