import json

import pytest

from puna.errors import TemplateRefusedError
from puna.messages import Message, ToolCall
from puna.prompt.jinja.probe import Abilities
from puna.prompt.jinja.repairs import arguments_text, conversation

SYSTEM = Message(role="system", content="S")
USER = Message(role="user", content="hi")


def called(arguments):
    return Message(role="assistant", tool_calls=(ToolCall(name="f", arguments=arguments, id="x"),))


def test_arguments_are_text_as_go_writes_it():
    sent = '{"z": 1, "a": 2.0, "b": 1e21, "c": 1e-7, "e": 12345678901234567890, "f": "<\u00e9&>", "j": {}, "l": 1e16}'
    assert arguments_text(sent) == (
        '{"z":1,"a":2,"b":1e+21,"c":1e-7,"e":12345678901234567000,"f":"\\u003c\u00e9\\u0026\\u003e","j":{},'
        '"l":10000000000000000}'
    )


def test_arguments_are_an_object_where_the_template_looks_into_them():
    (message,) = conversation([called('{"a": 1}')], Abilities(object_arguments=True))
    call = message["tool_calls"][0]
    assert call == {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}, "id": "x"}
    assert list(call) == ["type", "function", "id"]


def test_arguments_that_are_no_json_are_refused():
    with pytest.raises(TemplateRefusedError, match="Failed to parse tool call arguments as JSON"):
        conversation([called("{")], Abilities())


def test_a_system_message_goes_into_the_next_one_where_the_template_ignores_it():
    assert conversation([SYSTEM, USER], Abilities(system=False)) == [{"role": "user", "content": "S\nhi"}]
    assert conversation([SYSTEM], Abilities(system=False)) == []
    assert conversation([USER, SYSTEM], Abilities(system=False))[1]["role"] == "system"


def test_a_typed_system_message_cannot_be_moved():
    with pytest.raises(TemplateRefusedError) as refused:
        conversation([SYSTEM, USER], Abilities(system=False, content_parts=True))
    assert json.loads(str(refused.value))["error"]["code"] == 400


def test_thoughts_of_earlier_turns_are_not_passed_on():
    message = Message(role="assistant", content="a", thinking="t")
    assert conversation([message], Abilities()) == [{"role": "assistant", "content": "a"}]


def test_developers_are_systems_unless_the_template_knows_them():
    message = Message(role="developer", content="D")
    assert conversation([message], Abilities())[0]["role"] == "system"
    assert conversation([message], Abilities(), developer=True)[0]["role"] == "developer"


def test_media_follow_the_text_unless_they_have_places():
    after = Message(role="user", content="a", media=(b"1",))
    placed = Message(role="user", content="ab", media=(b"2", b"3"), media_at=(0, 1))
    assert [each["content"] for each in conversation([after, placed], Abilities())] == ["a[img-0]", "[img-1]a[img-2]b"]
