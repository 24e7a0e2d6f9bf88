from puna.messages import Message
from puna.prompt.builtin.notation import markup


def test_spaces_go_after_punctuation_outside_strings_only() -> None:
    assert markup.spaced({"a": [1, 'x,y:"z']}) == r'{"a": [1, "x,y:\"z"]}'


def test_angle_brackets_are_escaped_as_in_go_or_not_at_all() -> None:
    assert markup.spaced("<&>") == r'"\u003c\u0026\u003e"'
    assert markup.unescaped("<&> \\u003c") == r'"<&> \\u003c"'
    assert markup.parameters({"type": "<", "properties": {"a": "<"}}) == r'{"type": "<", "properties": {"a": "\u003c"}}'


def test_arguments_keep_their_order_and_sort_the_keys_of_inner_objects() -> None:
    found = markup.arguments('{"b": {"z": 1, "a": 2}, "a": 1}')
    assert (list(found), list(found["b"])) == (["b", "a"], ["a", "z"])
    assert markup.arguments("") == markup.arguments("[1]") == {}


def test_media_are_numbered_through_the_conversation() -> None:
    marks = markup.MediaMarkers()
    assert marks.content(Message(role="user", content="a [img] b", media=(b"1", b"2"))) == "[img-1] a [img-0] b"
    assert marks.content(Message(role="user", content="", media=(b"3",))) == "[img-2]"


def test_the_last_question_is_no_result_of_a_tool() -> None:
    result = Message(role="user", content="<tool_response>x</tool_response>")
    question = Message(role="user", content="q")
    assert markup.last_question([question, result]) == 0
    assert markup.last_question([result, result]) == 1


def test_values_with_bare_keys_are_sorted_and_whole_numbers_have_no_fraction() -> None:
    value = {"b": [1.0, 1.5, True], "a": None, "c": "x"}
    assert markup.brief(value, quote="'", none="nil") == "{a:nil,b:[1,1.5,true],c:'x'}"


def test_media_with_places_stand_there() -> None:
    message = Message(role="user", content="one two", media=(b"1", b"2"), media_at=(0, 4))
    assert markup.MediaMarkers().content(message) == "[img-0] one [img-1]two"
