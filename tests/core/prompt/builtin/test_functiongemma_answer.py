from tests.core.prompt.builtin.reading import GET, held_back, read

CALL = "<start_function_call>call:get{city:<escape>Oslo<escape>,days:2}<end_function_call>"


def test_content_and_calls_are_read() -> None:
    assert read("functiongemma", f"Look. {CALL}Done") == ("", "Look. Done", [GET])


def test_values_have_types_of_their_own() -> None:
    call = "<start_function_call>call:f{a:true,b:[1,<escape>x,y<escape>],c:{d:1.5},e:text}<end_function_call>"
    assert read("functiongemma", call)[2] == [("f", '{"a":true,"b":[1,"x,y"],"c":{"d":1.5},"e":"text"}')]


def test_an_unreadable_call_has_no_name_and_no_arguments() -> None:
    assert read("functiongemma", "<start_function_call>get it<end_function_call>")[2] == [("", "{}")]


def test_the_start_of_a_call_is_held_back() -> None:
    assert held_back("functiongemma", "a <start_") == "<start_"
