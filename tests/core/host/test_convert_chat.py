import pytest

from puna.backend import ChatInput, ChatMessage, ChatTool, ChatToolCall
from puna.backend.v1 import backend_pb2 as wire
from puna.host.convert_chat import chat_from_wire, chat_to_wire

CALL = ChatToolCall(name="f", arguments_json='{"x": 1}', id="c1")


@pytest.mark.parametrize(
    "chat",
    [
        ChatInput(messages=()),
        ChatInput(messages=(ChatMessage(role="user", content="a", media=(b"\0\xff",)),), thinking="off"),
        ChatInput(messages=(ChatMessage(role="user", content="abc", media=(b"1", b"2"), media_at=(1, 3)),)),
        ChatInput(
            messages=(
                ChatMessage(role="assistant", thinking="t", tool_calls=(CALL,)),
                ChatMessage(role="tool", content="1", tool_name="f", tool_call_id="c1"),
            ),
            tools=(ChatTool(name="f", description="d", parameters_json="{}"),),
            tool_choice="tool:f",
            thinking="high",
            thinking_budget=7,
        ),
        # No thinking at all differs from no limit.
        ChatInput(messages=(), thinking_budget=0),
    ],
)
def test_a_conversation_comes_back(chat):
    assert chat_from_wire(wire.ChatInput.FromString(chat_to_wire(chat).SerializeToString())) == chat
