import pytest

from puna.messages import Message, ToolCall
from puna.models.layout import preset_messages

TEXT = (
    '[{"role":"user","content":"hi","images":["aGVsbG8="]},{"role":"assistant","content":"","thinking":"t","tool_calls":'
    '[{"function":{"index":0,"name":"f","arguments":{"z":1,"a":{"b":2,"c":1}}}}]},{"role":"tool","content":"\\u003cr\\u003e",'
    '"tool_name":"f","tool_call_id":"i"},{"role":"","content":"y"}]\n'
)


def sample(role="user"):
    call = ToolCall(name="f", arguments='{"z":1.0,"a":{"c":1,"b":2}}')
    return (
        Message(role=role, content="hi", media=(b"hello",)),
        Message(role="assistant", thinking="t", tool_calls=(call,)),
        Message(role="tool", content="<r>", tool_name="f", tool_call_id="i"),
        Message(role="", content="y"),
    )


def test_messages_have_the_references_bytes():
    assert preset_messages.dumps(sample("USER")).decode() == TEXT


def test_what_is_written_is_read_again():
    read = preset_messages.loads(TEXT.encode())
    assert preset_messages.dumps(read).decode() == TEXT
    assert read[0] == sample()[0]
    assert read[1].tool_calls[0].arguments == '{"z":1,"a":{"b":2,"c":1}}'


@pytest.mark.parametrize("data", [b"{}", b"[1]", b"[", b'[{"images":["?"]}]'])
def test_what_are_no_messages_is_refused(data):
    with pytest.raises(ValueError):  # noqa: PT011 - json's own errors are among them
        preset_messages.loads(data)
