from tests.core.prompt.builtin.reading import GET, held_back, read

ACTION = '<|START_ACTION|>[\n{"tool_call_id": "0", "tool_name": "get", "parameters": {"city": "Oslo", "days": 2}}\n]'


def test_thinking_then_text_then_calls_are_read_between_their_tokens() -> None:
    answer = f"Hm<|END_THINKING|><|START_TEXT|>Look.<|END_TEXT|>{ACTION}<|END_ACTION|>"
    assert read("cohere", answer) == ("Hm", "Look.", [GET])


def test_calls_that_are_open_at_the_end_are_read() -> None:
    assert read("cohere", f"Hm<|END_THINKING|>{ACTION}")[2] == [GET]


def test_an_object_that_is_no_call_is_left_out_and_the_others_are_numbered_on() -> None:
    broken = ACTION.replace("[\n", '[\n{"tool_name": 1}, {oops}, ')
    assert read("cohere", f"<|END_THINKING|>{broken}<|END_ACTION|>")[2] == [GET]


def test_the_start_of_the_end_of_text_is_held_back_and_content_if_the_answer_ends() -> None:
    assert held_back("cohere", "<|START_TEXT|>", think=False) == "<|START_TEXT|>"
    assert read("cohere", "<|START_TEXT|>a<|END_", think=False) == ("", "a<|END_", [])


def test_text_without_a_token_is_content() -> None:
    assert read("cohere", "Yes", think=False) == ("", "Yes", [])
