from tests.core.prompt.builtin.reading import GET, held_back, read

CALL = '<|tool_call>call:get{city:<|"|>Oslo<|"|>,days:2}<tool_call|>'


def test_thoughts_content_and_calls_are_read_in_any_order() -> None:
    answer = f"<|channel>thought\nHm <channel|> Look. {CALL}<|tool_response>Done"
    assert read("gemma4", answer, think=True) == ("Hm", "Look.Done", [GET])


def test_thoughts_are_dropped_unless_they_are_asked_for() -> None:
    assert read("gemma4", "<|channel>thought\nHm<channel|>Yes") == ("", "Yes", [])
    assert read("gemma4-no-thinking", "<|channel>thought\nHm<channel|>Yes", think=True) == ("", "Yes", [])


def test_a_call_that_is_open_at_the_end_is_read_and_an_unreadable_one_dropped() -> None:
    assert read("gemma4", CALL.removesuffix("<tool_call|>"))[2] == [GET]
    assert read("gemma4", "<|tool_call>get it<tool_call|>") == ("", "", [])


def test_a_second_end_of_a_call_is_passed_over() -> None:
    assert read("gemma4", f"{CALL}<tool_call|>Done") == ("", "Done", [GET])


def test_the_start_of_a_marker_is_held_back_with_the_white_space_before_it() -> None:
    assert held_back("gemma4", "a \n<|chan") == " \n<|chan"
