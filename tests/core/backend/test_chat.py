"""A conversation reaches a host as the core sends it."""

from puna.backend import (
    ChatDelta,
    ChatInput,
    ChatMessage,
    ChatTool,
    ChatToolCall,
    Sampling,
    SequenceRequest,
    TokenLogprob,
)
from puna.backend.v1 import backend_pb2 as wire
from puna.host.convert import add_event, event_from_wire, sequence_from_wire, sequence_to_wire

CALL = ChatToolCall(name="weather", arguments_json='{"city": "Zoë"}', id="call-1")


def test_no_part_of_a_conversation_is_lost():
    asked = ChatMessage(role="user", content="Which?", media=(b"\x89PNG", b"RIFF"))
    called = ChatMessage(role="assistant", content="Well,", thinking="Hm.", tool_calls=(CALL, CALL))
    result = ChatMessage(role="tool", content="12 °C", tool_name="weather", tool_call_id="call-1")
    tool = ChatTool(name="weather", description="Tells it.", parameters_json='{"type": "object"}')
    chat = ChatInput(messages=(asked, called, result), tools=(tool,), tool_choice="tool:weather", thinking="low")
    request = SequenceRequest(prompt="", chat=chat, sampling=Sampling(temperature=0, top_p=1))
    assert sequence_from_wire(sequence_to_wire(request)) == request


def test_a_prompt_is_not_a_conversation():
    assert sequence_from_wire(sequence_to_wire(SequenceRequest(prompt="Hi"))).chat is None


def test_no_part_of_an_answer_is_lost():
    alternative = TokenLogprob(b"o", 7, -1.5)
    delta = ChatDelta(
        content="12", thinking="Hm", tool_calls=(CALL,), logprobs=(TokenLogprob(b"1", -1, -0.5, (alternative,)),)
    )
    message = wire.RunResponse()
    add_event(message, 1, delta)
    assert event_from_wire(message.events[0]) == delta
