from tests.core.prompt.builtin.reading import GET, held_back, read

from puna.prompt.builtin.format_texts.deepseek import CALL, CALLS, END_OF_CALL, END_OF_CALLS, SEPARATOR

ARGUMENTS = '{"city": "Oslo", "days": 2}'
ONE = f"{CALL}get{SEPARATOR}{ARGUMENTS}{END_OF_CALL}"


def test_thinking_content_and_calls_are_read() -> None:
    assert read("deepseek3", f"Hm </think> Look. {CALLS}{ONE}{ONE}{END_OF_CALLS}", think=True) == (
        "Hm",
        "Look.",
        [GET, GET],
    )


def test_calls_come_one_by_one_as_they_are_complete() -> None:
    assert read("deepseek3", f"{CALLS}{ONE}")[2] == [GET]


def test_all_calls_after_one_that_cannot_be_read_are_left_out_and_content_goes_on() -> None:
    broken = f"{CALL}get{SEPARATOR}{{{END_OF_CALL}"
    assert read("deepseek3", f"{CALLS}{ONE}{broken}{ONE}{END_OF_CALLS} Done") == ("", "Done", [GET])


def test_cogito_writes_arguments_in_a_fence_and_does_not_think_with_tools() -> None:
    call = f"{CALL}function{SEPARATOR}get\n```json\n{ARGUMENTS}\n```{END_OF_CALL}"
    assert read("cogito", f"Look. {CALLS}{call}{END_OF_CALLS}", think=True) == ("", "Look.", [GET])
    assert read("cogito", "Hm</think>Yes", think=True, tools=()) == ("Hm", "Yes", [])


def test_thinking_holds_back_what_could_be_its_end() -> None:
    assert held_back("deepseek3", "Hm \n</thi", think=True) == " \n</thi"
