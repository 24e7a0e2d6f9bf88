import json

import pytest

from puna.messages import Message, ToolCall
from puna.serving.answers import Delta
from puna.serving.requests import (
    ChatRequest,
    EmbedRequest,
    GenerateRequest,
    RequestOptions,
    RerankRequest,
    ScoreRequest,
)
from puna.tracing import content

CALL = ToolCall(name="f", arguments='{"a":1}', id="c1")


def messages(request, most=10_000):
    return json.loads(content.of_request(request, most)[content.INPUT])


def texts(request):
    return [part["content"] for each in messages(request) for part in each["parts"]]


def test_a_conversation_has_its_messages_calls_and_media():
    said = (
        Message(role="user", content="look", media=(b"png",)),
        Message(role="assistant", thinking="hm", tool_calls=(CALL,)),
        Message(role="tool", content="42", tool_call_id="c1"),
    )
    assert messages(ChatRequest(model="m", messages=said)) == [
        {"role": "user", "parts": [{"type": "text", "content": "look"}, {"type": "blob", "count": 1}]},
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "hm"},
                {"type": "tool_call", "id": "c1", "name": "f", "arguments": '{"a":1}'},
            ],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "response": "42", "id": "c1"}]},
    ]


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        (GenerateRequest(model="m", prompt="p", system="s"), ["s", "p"]),
        (GenerateRequest(model="m", prompt=(1, 2), raw=True), ["[2 tokens]"]),
        (EmbedRequest(model="m", inputs=("a", "b")), ["a", "b"]),
        (RerankRequest(model="m", query="q", documents=("d",)), ["q", "d"]),
        (ScoreRequest(model="m", context="c", continuations=("x", (1,))), ["c", "x", "[1 tokens]"]),
    ],
)
def test_other_requests_are_messages_of_the_user(request_, found):
    assert texts(request_) == found


@pytest.mark.parametrize("text", ["x" * 1_000_000, "é" * 1_000_000, "🦙" * 1_000_000, "\ud800" * 1_000_000])
def test_a_long_text_is_cut_within_the_bound(text):
    found = content.of_request(GenerateRequest(model="m", prompt=text), 1000)
    assert len(found[content.INPUT].encode()) < 1200
    assert found[content.CUT] is True


def test_many_small_messages_are_bounded_and_so_are_calls_and_stops():
    call = Message(role="assistant", tool_calls=(CALL,) * 100_000)
    for said in ((Message(role="user", content="a"),) * 100_000, (call,)):
        found = content.of_request(ChatRequest(model="m", messages=said), 1000)
        assert len(found[content.INPUT]) < 3000
        assert found[content.CUT] is True
    options = RequestOptions(values={"stop": ["a"] * 100_000})
    assert len(content.of_request(ChatRequest(model="m", options=options), 1000)["gen_ai.request.stop_sequences"]) < 20


def test_each_answer_has_its_parts_and_its_end():
    deltas = [
        Delta(thinking="hm "),
        Delta(text="a", choice=1),
        Delta(thinking="so", choice=0),
        Delta(text="b", tool_calls=(CALL,)),
    ]
    found = json.loads(content.of_answer(deltas, ("stop",), 10_000)[content.OUTPUT])
    assert [(each["role"], each["finish_reason"]) for each in found] == [("assistant", "stop"), ("assistant", "error")]
    assert [part["type"] for part in found[0]["parts"]] == ["reasoning", "text", "tool_call"]
    assert found[0]["parts"][0]["content"] == "hm so"
    assert found[1]["parts"] == [{"type": "text", "content": "a"}]
