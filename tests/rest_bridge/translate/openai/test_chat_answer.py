import json

import pytest

from puna_client.v1 import chat_pb2, message_pb2, usage_pb2
from puna_rest.errors import Failure
from puna_rest.translate.openai import chat_answer

CALL = message_pb2.ToolCall(id="call_1", index=0, name="f", arguments_json='{"b": 1.0}')
WRITTEN = [{"id": "call_1", "index": 0, "type": "function", "function": {"name": "f", "arguments": '{"b":1}'}}]


def finish(reason="STOP"):
    return usage_pb2.Finish(
        reason=usage_pb2.FinishReason.Value(f"FINISH_REASON_{reason}"),
        usage=usage_pb2.Usage(prompt_tokens=3, output_tokens=2),
    )


def events(text):
    """Return the data of each event; the end mark as it is."""
    assert text.endswith("\n\n")
    data = [each.removeprefix("data: ") for each in text.strip().split("\n\n")]
    return [each if each == "[DONE]" else json.loads(each) for each in data]


def stream(*deltas, done=None, include_usage=False):
    message = chat_pb2.StreamChatResponse(deltas=deltas)
    if done is not None:
        message.done.CopyFrom(done)
    return events(chat_answer.Chunks("m", include_usage=include_usage, call_deltas=True).write(message))


def choices(*deltas, **more):
    return [
        (each["choices"][0]["delta"], each["choices"][0]["finish_reason"])
        for each in stream(*deltas, **more)
        if each != "[DONE]" and each["choices"]
    ]


def test_only_the_first_chunk_names_the_role():
    found = choices(
        chat_pb2.ChatDelta(content="a"), chat_pb2.ChatDelta(content="b"), done=chat_pb2.ChatDone(finish=finish())
    )
    assert found == [({"role": "assistant", "content": "a"}, None), ({"content": "b"}, None), ({}, "stop")]


def test_all_chunks_of_a_stream_share_an_id_and_the_mark_ends_it():
    found = stream(chat_pb2.ChatDelta(content="a"), done=chat_pb2.ChatDone(finish=finish()))
    assert found[-1] == "[DONE]"
    assert len({each["id"] for each in found[:-1]}) == 1
    assert {each["object"] for each in found[:-1]} == {"chat.completion.chunk"}


def test_thinking_and_content_in_one_delta_become_two_chunks():
    found = choices(chat_pb2.ChatDelta(thinking="t", content="a"), chat_pb2.ChatDelta(thinking="u"))
    assert found == [
        ({"role": "assistant", "reasoning": "t"}, None),
        ({"content": "a"}, None),
        ({"content": "", "reasoning": "u"}, None),
    ]


@pytest.mark.parametrize(
    ("calls", "reason", "told"),
    [([CALL], "STOP", "tool_calls"), ([CALL], "LENGTH", "length"), ([], "STOP", "stop"), ([], "LOADED", "load")],
)
def test_calls_change_the_reason_of_an_answer_that_is_complete(calls, reason, told):
    deltas = [chat_pb2.ChatDelta(tool_calls=calls)] if calls else []
    assert choices(*deltas, done=chat_pb2.ChatDone(finish=finish(reason)))[-1] == ({}, told)
    whole = chat_pb2.ChatResponse(message=message_pb2.ChatMessage(tool_calls=calls), finish=finish(reason))
    assert chat_answer.completion("m", whole)["choices"][0]["finish_reason"] == told


def test_usage_is_a_chunk_of_its_own_if_asked_for():
    done = chat_pb2.ChatDone(finish=finish())
    last = stream(chat_pb2.ChatDelta(content="a"), done=done, include_usage=True)[-2]
    assert (last["choices"], last["usage"]) == ([], {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5})
    assert all("usage" not in each for each in stream(chat_pb2.ChatDelta(content="a"), done=done)[:-1])


def test_an_answer_that_is_not_streamed():
    entry = usage_pb2.TokenLogprob(text="a", raw=b"a", logprob=-0.5)
    message = message_pb2.ChatMessage(content="a", thinking="t", tool_calls=[CALL])
    found = chat_answer.completion("m", chat_pb2.ChatResponse(message=message, logprobs=[entry], finish=finish()))
    (choice,) = found["choices"]
    assert choice["message"] == {"role": "assistant", "content": "a", "reasoning": "t", "tool_calls": WRITTEN}
    assert choice["logprobs"]["content"][0]["token"] == "a"
    assert found["usage"]["total_tokens"] == 5
    assert found["system_fingerprint"] == "fp_ollama"


def test_a_rendered_prompt():
    found = chat_answer.completion("m", chat_pb2.ChatResponse(rendered=usage_pb2.RenderedPrompt(text="p")))
    assert found["_debug_info"] == {"rendered_template": "p"}
    assert found["choices"][0]["finish_reason"] is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (404, "not_found_error"), (500, "api_error"), (503, "api_error")],
)
def test_errors(status, kind):
    failure = Failure(status, "<no>")
    error = {"error": {"message": "<no>", "type": kind, "param": None, "code": None}}
    assert chat_answer.error(failure) == error
    assert events(chat_answer.error_event(failure)) == [error]


PARTS = [
    message_pb2.ToolCallDelta(index=0, id="call_1", name="f", arguments_json='{"b"'),
    message_pb2.ToolCallDelta(index=0, arguments_json=":1}"),
    message_pb2.ToolCallDelta(index=1, id="call_2", name="g", arguments_json="{}"),
]


def test_a_call_that_comes_in_parts_is_written_once():
    second = message_pb2.ToolCall(id="call_2", index=1, name="g", arguments_json="{}")
    found = choices(
        chat_pb2.ChatDelta(content="a"),
        chat_pb2.ChatDelta(tool_call_deltas=PARTS[:1]),
        chat_pb2.ChatDelta(tool_call_deltas=PARTS[1:], tool_calls=[CALL]),
        chat_pb2.ChatDelta(tool_calls=[second]),
        done=chat_pb2.ChatDone(finish=finish()),
    )
    first = {"id": "call_1", "index": 0, "type": "function", "function": {"name": "f", "arguments": '{"b"'}}
    rest = {"index": 0, "function": {"arguments": ":1}"}}
    other = {"id": "call_2", "index": 1, "type": "function", "function": {"name": "g", "arguments": "{}"}}
    assert [delta.get("tool_calls") for delta, _ in found] == [None, [first], [rest, other], None]
    assert [reason for _, reason in found] == [None, None, None, "tool_calls"]


def test_a_call_that_is_cut_is_no_call():
    found = choices(chat_pb2.ChatDelta(tool_call_deltas=PARTS[:1]), done=chat_pb2.ChatDone(finish=finish("LENGTH")))
    assert found[-1][1] == "length"
