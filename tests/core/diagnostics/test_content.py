import json

import pytest

from puna.backend import ChatInput, ChatMessage, ChatToolCall, Constraint, SequenceRequest
from puna.diagnostics.content import LEAST, OVERHEAD, Content, Policy
from puna.diagnostics.redaction import Redaction
from puna.messages import Message, Think, ToolCall
from puna.serving.answers import Delta
from puna.serving.requests import ChatRequest, EmbedRequest, GenerateRequest, RequestOptions, ScoreRequest


def content(most=1 << 20, reserve=lambda count: count, **policy):
    return Content(Policy(max_bytes=most, **policy), reserve)


def read(found, request):
    """Add a request; return its images, in order."""
    hashed = []
    found.add_request(request, lambda media, data: hashed.append(data))
    return hashed


def test_a_long_prompt_leaves_room_for_the_answer():
    found = content(1000)
    found.add_sequence(SequenceRequest(prompt="é" * 1000), 0)
    found.add_answer([Delta(text="yes")])
    (sequence,), (answer,) = found.sequences, found.answers
    assert sequence.prompt.decode() == "é" * (len(sequence.prompt) // 2)
    assert 900 < len(sequence.prompt) + LEAST <= 1000
    assert answer.text == b"yes"
    assert found.truncated
    assert found.size <= OVERHEAD + 2000


def test_many_empty_texts_are_bounded():
    found = content(10 * LEAST)
    read(found, EmbedRequest(model="m", inputs=("",) * 1000))
    found.add_answer([Delta(choice=choice) for choice in range(1000)])
    assert len(found.inputs) <= 10
    assert len(found.answers) <= 10
    assert found.truncated


def test_the_bound_on_all_records_may_grant_less():
    left = [OVERHEAD + LEAST + 10]

    def reserve(count):
        granted = min(count, left[0])
        left[0] -= granted
        return granted

    found = content(reserve=reserve)
    found.add_sequence(SequenceRequest(prompt="x" * 100), 0)
    assert len(found.sequences[0].prompt) == 10
    assert found.truncated
    assert found.size == OVERHEAD + LEAST + 10


@pytest.mark.parametrize("behind", [10, 9000])
def test_a_secret_at_the_cut_is_removed_before_the_cut(behind):
    found = content(100 + LEAST, redaction=Redaction(["secret-[0-9]{9}"]))
    found.add_sequence(SequenceRequest(prompt="." * 95 + "secret-123456789" + "." * behind), 0)
    (sequence,) = found.sequences
    assert sequence.prompt.startswith(b"." * 90)
    assert b"s" not in sequence.prompt
    assert found.truncated


def test_what_was_removed_moves_no_part_of_a_secret_into_the_text():
    secrets = Redaction(["secret-[0-9]{90}"])
    found = content(1000, redaction=secrets)
    found.add_sequence(SequenceRequest(prompt="secret-" + ("1" * 90 + ", secret-") * 1000), 0)
    assert found.sequences[0].prompt.replace(b"[redacted], ", b"") in b"[redacted], "
    found.add_error(("secret-" + "1" * 90) * 1000)
    assert found.error.replace(b"[redacted]", b"") == b""
    assert found.truncated


def test_json_is_kept_as_a_whole_or_not_at_all():
    found = content(6 * LEAST)
    read(found, ChatRequest(model="m", options=RequestOptions(values={"stop": ["x" * 500]})))
    found.add_answer([Delta(tool_calls=(ToolCall(name="get", arguments='{"x": "' + "y" * 500 + '"}'),))])
    assert found.options_json == b""
    ((call, arguments),) = found.answers[0].tool_calls
    assert (call.name, call.arguments, arguments) == ("get", "", b"")
    assert found.truncated


def test_the_options_that_a_request_sets_are_kept():
    found = content()
    options = RequestOptions(
        values={"seed": 1, "temperature": float("inf")}, think=Think(on=True, level="high"), logit_bias={7: -1.0}
    )
    read(found, ChatRequest(model="m", options=options))
    assert json.loads(found.options_json) == {
        "seed": 1,
        "temperature": "inf",
        "think": "high",
        "logit_bias": {"7": -1.0},
    }


def test_images_are_counted_and_hashed_and_never_kept():
    found = content()
    assert read(found, ChatRequest(model="m", messages=(Message(role="user", media=(b"one", b"three")),))) == [
        b"one",
        b"three",
    ]
    assert [each.size_bytes for each in found.media] == [3, 5]


def test_messages_for_a_backend_are_kept_without_their_images():
    call = ChatToolCall(name="get", arguments_json='{"x": 1}')
    chat = ChatInput(
        messages=(ChatMessage(role="user", content="hi", media=(b"img",)), ChatMessage(role="tool", tool_calls=(call,)))
    )
    found = content()
    constraint = Constraint("json_schema", "{}")
    found.add_sequence(SequenceRequest(prompt="", chat=chat, constraint=constraint), 1)
    (sequence,) = found.sequences
    assert (sequence.choice, sequence.constraint) == (1, "json_schema")
    assert json.loads(sequence.messages_json) == [
        {"role": "user", "content": "hi", "media_count": 1},
        {"role": "tool", "content": "", "tool_calls": [{"name": "get", "arguments_json": '{"x": 1}', "id": ""}]},
    ]


@pytest.mark.parametrize(("patterns", "ids"), [((), [1, 2, 3]), (("x",), [])])
def test_token_ids_are_kept_unless_there_are_patterns(patterns, ids):
    found = content(redaction=Redaction(patterns))
    found.add_sequence(SequenceRequest(prompt=(1, 2, 3)), 0)
    read(found, ScoreRequest(model="m", continuations=((1, 2, 3), "xy")))
    assert list(found.sequences[0].token_ids) == ids
    assert found.inputs == ([b"[1, 2, 3]", b"xy"] if ids else [b"", b"[redacted]y"])
    assert found.redacted == (0 if ids else 3)


def test_a_long_conversation_keeps_its_last_messages():
    found = content(1000)
    messages = [ChatMessage(role="user", content=str(number) * 200) for number in range(9)]
    found.add_sequence(SequenceRequest(prompt="", chat=ChatInput(messages=tuple(messages))), 0)
    kept = json.loads(found.sequences[0].messages_json)
    assert [each["content"][0] for each in kept] == ["6", "7", "8"]
    assert found.truncated


def test_what_came_to_no_sequence_is_kept_as_it_was_sent():
    call = ToolCall(name="get", arguments='{"x": 1}')
    messages = (Message(role="user", content="hi"), Message(role="assistant", tool_calls=(call,)))
    found = content()
    found.add_unrendered(ChatRequest(model="m", messages=messages))
    assert found.inputs == [b"user: hi", b'assistant: \nget {"x": 1}']
    found = content()
    found.add_unrendered(GenerateRequest(model="m", system="be brief", prompt="go"))
    found.add_unrendered(EmbedRequest(model="m", inputs=("a",)))
    assert found.inputs == [b"system: be brief", b"go"]
    found = content()
    found.add_sequence(SequenceRequest(prompt="[user]go"), 0)
    found.add_unrendered(GenerateRequest(model="m", prompt="go"))
    assert found.inputs == []
    found = content(prompts=False)
    found.add_unrendered(GenerateRequest(model="m", prompt="go"))
    assert found.inputs == []


def test_lone_surrogates_are_replaced():
    found = content()
    found.add_answer([Delta(text="a\ud800")])
    found.add_error("b\ud800")
    assert (found.answers[0].text, found.error) == (b"a?", b"b?")


def test_a_copy_is_charged_to_nothing():
    charged = []
    found = content(reserve=lambda count: charged.append(count) or count)
    before = sum(charged)
    copied = found.copy()
    copied.add_answer([Delta(text="abc")])
    assert (len(copied.answers), len(found.answers), sum(charged)) == (1, 0, before)
