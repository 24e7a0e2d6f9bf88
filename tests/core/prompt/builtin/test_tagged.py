import pytest
from tests.core.prompt.builtin.reading import GET, TOOLS, held_back, read

from puna.errors import BackendFailedError
from puna.messages import Message

CALL = '<tool_call>{"name": "get", "arguments": {"city": "Oslo", "days": 2}}</tool_call>'
BEGUN = Message(role="assistant", content="Once")


def test_white_space_around_calls_is_dropped() -> None:
    assert read("qwen3", f"Look. \n{CALL}\n Done. \n") == ("", "Look.Done.", [GET])


def test_an_answer_begins_within_thinking_and_may_open_it_again() -> None:
    assert read("qwen3-thinking", "<think>Hm", "</thi", "nk>\n\nYes") == ("Hm", "Yes", [])
    assert read("qwen3-thinking", "Hm</think>Yes") == ("Hm", "Yes", [])


def test_a_call_ends_thinking_for_families_that_leave_it_open() -> None:
    assert read("qwen3-thinking", f"Hm {CALL}") == ("Hm", "", [GET])


@pytest.mark.parametrize(("name", "thinking", "content"), [("qwen3.5", "", " upon"), ("qwen3-thinking", " upon", "")])
def test_an_answer_that_the_conversation_began_goes_on_as_the_family_does(
    name: str, thinking: str, content: str
) -> None:
    assert read(name, " upon", last=BEGUN) == (thinking, content, [])


def test_thinking_that_is_off_is_read_only_where_the_family_still_writes_it() -> None:
    assert read("glm-4.7", "<think>Hm</think>Yes", think=False) == ("Hm", "Yes", [])
    assert read("qwen3.5", "<think>Hm</think>Yes", think=False) == ("", "<think>Hm</think>Yes", [])
    assert read("qwen3-vl-thinking", "Hm</think>Yes", think=False) == ("Hm", "Yes", [])


def test_the_start_of_a_marker_is_held_back_with_the_white_space_before_it() -> None:
    assert held_back("qwen3", "a \n<tool_") == " \n<tool_"
    assert held_back("qwen3", "a <b") == ""
    assert held_back("qwen3-thinking", "a </thi") == " </thi"


def test_a_call_that_is_not_closed_is_lost_except_for_glm() -> None:
    assert read("qwen3", CALL.removesuffix("</tool_call>")) == ("", "", [])
    pairs = "<arg_key>city</arg_key><arg_value>Oslo</arg_value><arg_key>days</arg_key><arg_value>2</arg_value>"
    assert read("glm-4.7", f"</think><tool_call>get{pairs}</tool", tools=TOOLS)[2] == [GET]
    with pytest.raises(BackendFailedError, match=r'^incomplete GLM tool call: tool "put" is not declared$'):
        read("glm-4.7", "</think><tool_call>put<arg_key>a</arg_key><arg_value>1</arg_value>")
