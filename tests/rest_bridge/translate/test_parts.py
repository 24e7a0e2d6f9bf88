import pytest

from puna_client.v1 import chat_pb2, message_pb2, usage_pb2
from puna_rest.translate.parts import Part, full_answer, parts

FINISH = usage_pb2.Finish(
    reason=usage_pb2.FINISH_REASON_LENGTH, usage=usage_pb2.Usage(prompt_tokens=3, output_tokens=2)
)


def test_only_the_last_part_has_a_reason_and_counts():
    message = chat_pb2.StreamChatResponse(
        deltas=[chat_pb2.ChatDelta(content="a"), chat_pb2.ChatDelta(thinking="t"), chat_pb2.ChatDelta(content="c")],
        done=chat_pb2.ChatDone(completes_delta=True, finish=FINISH),
    )
    found = list(parts(message))
    assert [(each.content, each.thinking) for each in found] == [("a", ""), ("", "t"), ("c", "")]
    assert [(each.reason, each.usage.prompt_tokens, each.usage.output_tokens) for each in found] == [
        ("", 0, 0),
        ("", 0, 0),
        ("length", 3, 2),
    ]


def test_an_empty_message_has_no_parts():
    assert list(parts(chat_pb2.StreamChatResponse())) == []


@pytest.mark.parametrize("streamed", [True, False])
def test_a_rendered_prompt_has_no_finish(streamed):
    rendered = usage_pb2.RenderedPrompt(text="p")
    if streamed:
        done = chat_pb2.ChatDone(rendered=rendered, finish=FINISH)
        (found,) = parts(chat_pb2.StreamChatResponse(done=done))
    else:
        found = full_answer(chat_pb2.ChatResponse(rendered=rendered, finish=FINISH))
    assert (found.rendered.text, found.finish, found.reason) == ("p", None, "")


def test_an_answer_that_is_not_streamed_is_one_part():
    call = message_pb2.ToolCall(name="f")
    message = message_pb2.ChatMessage(content="a", thinking="t", tool_calls=[call])
    entry = usage_pb2.TokenLogprob(text="a")
    found = full_answer(chat_pb2.ChatResponse(message=message, logprobs=[entry], finish=FINISH))
    assert found == Part(content="a", thinking="t", tool_calls=(call,), logprobs=(entry,), finish=FINISH)
