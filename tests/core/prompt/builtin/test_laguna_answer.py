import pytest
from tests.core.prompt.builtin.reading import GET, held_back, read

from puna.errors import BackendFailedError
from puna.messages import Message

PAIRS = "<arg_key>city</arg_key><arg_value>Oslo</arg_value><arg_key>days</arg_key><arg_value>2</arg_value>"
CALL = f"<tool_call>get{PAIRS}</tool_call>"


def test_thinking_content_and_calls_are_read() -> None:
    assert read("laguna", f"Hm </think> Look. {CALL}", think=True) == ("Hm", "Look.", [GET])


def test_a_call_may_be_json() -> None:
    call = '<tool_call>{"name": "get", "arguments": {"city": "Oslo", "days": 2}}</tool_call>'
    assert read("laguna", call)[2] == [GET]
    with pytest.raises(BackendFailedError, match=r"^failed to parse Laguna JSON tool call: "):
        read("laguna", "<tool_call>{</tool_call>")


def test_a_call_that_is_open_at_the_end_is_read() -> None:
    assert read("laguna", CALL.removesuffix("</tool_call>"))[2] == [GET]


def test_a_begun_answer_may_close_a_thought() -> None:
    begun = Message(role="assistant", content="Once")
    assert read("laguna", "</think> upon", think=True, last=begun) == ("", "upon", [])
    assert read("poolside-v1", "Hm</think>upon", think=True, last=begun) == ("Hm", "upon", [])


def test_thoughts_come_word_by_word() -> None:
    assert held_back("laguna", "one two", think=True) == "one two"
    assert held_back("laguna", "one two ", think=True) == " "
