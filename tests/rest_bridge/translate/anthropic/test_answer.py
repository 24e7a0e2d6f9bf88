import base64
import hashlib
import json

import pytest

from puna_client.v1 import chat_pb2, message_pb2, usage_pb2
from puna_rest.errors import Failure
from puna_rest.translate.anthropic import answer
from puna_rest.translate.parts import Part

CALL = message_pb2.ToolCall(id="toolu_1", name="f", arguments_json='{"a": 1.0}')
SEARCH = message_pb2.ToolCall(id="toolu_2", name="web_search", arguments_json='{"query": "cats"}')


def finish(reason="STOP"):
    return usage_pb2.Finish(
        reason=usage_pb2.FinishReason.Value(f"FINISH_REASON_{reason}"),
        usage=usage_pb2.Usage(prompt_tokens=3, output_tokens=2),
    )


def events(*deltas, done=None, **how):
    message = chat_pb2.StreamChatResponse(deltas=deltas)
    if done is not None:
        message.done.CopyFrom(done)
    text = answer.Events("m", 9, call_deltas=True, **how).write(message)
    found = []
    for each in text.strip().split("\n\n"):
        name, data = each.split("\n")
        value = json.loads(data.removeprefix("data: "))
        assert value["type"] == name.removeprefix("event: ")
        found.append(value)
    return found


def signature(text):
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_blocks_follow_each_other_and_are_closed():
    found = events(
        chat_pb2.ChatDelta(thinking="t"),
        chat_pb2.ChatDelta(content="a"),
        chat_pb2.ChatDelta(content="b", tool_calls=[CALL]),
        done=chat_pb2.ChatDone(finish=finish()),
    )
    assert [(each["type"], each.get("index")) for each in found] == [
        ("message_start", None),
        ("content_block_start", 0),
        ("content_block_delta", 0),
        ("content_block_stop", 0),
        ("content_block_start", 1),
        ("content_block_delta", 1),
        ("content_block_delta", 1),
        ("content_block_stop", 1),
        ("content_block_start", 2),
        ("content_block_delta", 2),
        ("content_block_stop", 2),
        ("message_delta", None),
        ("message_stop", None),
    ]
    assert found[9]["delta"] == {"type": "input_json_delta", "partial_json": '{"a":1}'}
    assert found[-2]["delta"] == {"stop_reason": "tool_use"}
    assert found[-2]["usage"] == {"input_tokens": 3, "output_tokens": 2}


def test_the_first_event_has_the_estimate():
    (start, *_) = events(chat_pb2.ChatDelta(content="a"))
    assert start["message"]["usage"] == {"input_tokens": 9, "output_tokens": 0}


def test_a_call_that_comes_twice_is_one_block():
    found = events(
        chat_pb2.ChatDelta(tool_calls=[CALL]),
        chat_pb2.ChatDelta(tool_calls=[CALL]),
        done=chat_pb2.ChatDone(completes_delta=True, finish=finish()),
    )
    assert sum(each["type"] == "content_block_start" for each in found) == 1


def test_thinking_is_signed_for_those_who_need_it():
    found = events(
        chat_pb2.ChatDelta(thinking="ab"),
        chat_pb2.ChatDelta(thinking="c"),
        chat_pb2.ChatDelta(content="d"),
        signed=True,
    )
    assert found[1]["content_block"] == {"type": "thinking", "thinking": "", "signature": ""}
    assert found[4]["delta"] == {"type": "signature_delta", "signature": signature("abc")}
    unsigned = json.dumps(events(chat_pb2.ChatDelta(thinking="ab"), chat_pb2.ChatDelta(content="d")))
    assert "signature" not in unsigned
    whole = answer.message("m", Part(thinking="abc", finish=finish()), signed=True)
    assert whole["content"][0]["signature"] == signature("abc")


@pytest.mark.parametrize(
    ("reason", "told"),
    [("STOP", "end_turn"), ("LENGTH", "max_tokens"), ("LOADED", "stop_sequence"), ("UNSPECIFIED", None)],
)
def test_reasons(reason, told):
    assert answer.message("m", Part(content="a", finish=finish(reason))).get("stop_reason") == told
    end = events(chat_pb2.ChatDelta(content="a"), done=chat_pb2.ChatDone(finish=finish(reason)))[-2]
    assert end["delta"].get("stop_reason") == told


@pytest.mark.parametrize(("arguments", "code"), [('{"query":"cats"}', "unavailable"), ("{}", "invalid_request")])
def test_a_search_fails_and_ends_the_answer(arguments, code):
    asked = message_pb2.ToolCall(name="web_search", arguments_json=arguments)
    whole = answer.message("m", Part(tool_calls=(asked,), finish=finish()), searching=True)
    assert whole["stop_reason"] == "end_turn"
    use, result = whole["content"]
    assert use["id"] == result["tool_use_id"]
    assert result["content"]["error_code"] == code
    late = chat_pb2.ChatDone(completes_delta=True, finish=finish())
    found = events(
        chat_pb2.ChatDelta(content="a", tool_calls=[asked]),
        chat_pb2.ChatDelta(content="late"),
        done=late,
        searching=True,
    )
    assert "late" not in json.dumps(found)
    assert found[-2]["delta"] == {"stop_reason": "end_turn"}


def test_without_the_builtin_tool_a_call_of_that_name_is_a_call():
    whole = answer.message("m", Part(tool_calls=(SEARCH,), finish=finish()))
    assert whole["content"][0]["type"] == "tool_use"
    assert whole["stop_reason"] == "tool_use"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *[(400, "invalid_request_error"), (401, "authentication_error"), (403, "permission_error")],
        *[(404, "not_found_error"), (429, "rate_limit_error"), (503, "overloaded_error"), (500, "api_error")],
    ],
)
def test_errors(status, kind):
    shape = answer.error(Failure(status, "no"))
    assert shape["error"] == {"type": kind, "message": "no"}
    assert shape["request_id"].startswith("req_")
    name, data = answer.error_event(Failure(status, "no")).strip().split("\n")
    assert name == "event: error"
    assert json.loads(data.removeprefix("data: ")) == {"type": "error", "error": shape["error"]}


def test_a_call_that_comes_in_parts_is_one_block():
    parts = [
        message_pb2.ToolCallDelta(index=0, id="toolu_1", name="f", arguments_json='{"a"'),
        message_pb2.ToolCallDelta(index=0, arguments_json=":1}"),
        message_pb2.ToolCallDelta(index=1, id="toolu_2", name="g"),
    ]
    found = events(
        chat_pb2.ChatDelta(content="a", tool_call_deltas=parts[:1]),
        chat_pb2.ChatDelta(tool_call_deltas=parts[1:]),
        chat_pb2.ChatDelta(tool_calls=[CALL, message_pb2.ToolCall(id="toolu_2", index=1, name="g")]),
        done=chat_pb2.ChatDone(finish=finish()),
    )
    assert [(each["type"].removeprefix("content_block_"), each["index"]) for each in found if "index" in each] == [
        *(("start", 0), ("delta", 0), ("stop", 0)),
        *(("start", 1), ("delta", 1), ("delta", 1), ("stop", 1)),
        *(("start", 2), ("stop", 2)),
    ]
    assert [
        each["delta"]["partial_json"] for each in found if each.get("delta", {}).get("type") == "input_json_delta"
    ] == [
        '{"a"',
        ":1}",
    ]
    assert found[-2]["delta"]["stop_reason"] == "tool_use"
