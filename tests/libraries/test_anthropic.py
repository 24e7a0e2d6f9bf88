"""The anthropic package against /v1/messages."""

import json

SCRIPT = "drive_anthropic.py"
ANSWER = "The capital of France is Paris."


def of_type(message, kind):
    return [block for block in message["content"] if block["type"] == kind]


def test_messages(found):
    answer = found["messages"]
    (block,) = answer["content"]
    assert (block["type"], block["text"]) == ("text", ANSWER)
    assert answer["stop_reason"] == "end_turn"
    assert answer["usage"]["input_tokens"] > 0
    assert answer["usage"]["output_tokens"] > 5


def test_system_blocks_are_heard(found):
    (text,) = found["named_by_the_system"]
    assert "Clara" in text


def test_stream(found):
    kinds = found["stream"]["kinds"]
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 2
    final = found["stream"]["final"]
    assert of_type(final, "thinking")[0]["thinking"]
    assert of_type(final, "text")[0]["text"] == ANSWER
    assert final["usage"]["output_tokens"] > 5
    assert len(found["stream_async"]) > 3
    assert "".join(found["stream_async"]) == ANSWER


def test_events_come_in_their_order(found):
    kinds = found["raw_stream"]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[2:5] == ["content_block_delta"] * 3
    assert kinds[5:] == ["content_block_stop", "message_delta", "message_stop"]


def test_tools(found):
    first, second = found["tools"]["first"], found["tools"]["second"]
    assert first["stop_reason"] == "tool_use"
    (call,) = of_type(first, "tool_use")
    assert (call["name"], call["input"]) == ("get_weather", {"city": "Paris"})
    assert second["stop_reason"] == "end_turn"
    assert "18 degrees" in of_type(second, "text")[0]["text"]


def test_tools_streamed(found):
    calls = of_type(found["tools_stream"]["final"], "tool_use")
    assert [call["input"] for call in calls] == [{"city": "Rome"}, {"city": "Oslo"}]
    assert [json.loads(piece) for piece in found["tools_stream"]["pieces"]] == [call["input"] for call in calls]
    assert found["tools_stream"]["final"]["stop_reason"] == "tool_use"


def test_the_input_of_a_call_comes_in_parts(found):
    assert "".join(found["tools_in_parts"]["parts"]) == '{"city":"Paris","days":2}'
    assert len(found["tools_in_parts"]["parts"]) == 2
    (call,) = of_type(found["tools_in_parts"]["final"], "tool_use")
    assert call["input"] == {"city": "Paris", "days": 2}


def test_thinking(found):
    thought, said = found["thinking"]["content"]
    assert "7" in thought["thinking"]
    assert said["text"] == "3 + 4 = 7."
    assert found["thinking_where_none_is"]["text"] == "Hello, world!"


def test_limits(found):
    assert found["limits"]["cut"]["stop_reason"] == "max_tokens"
    assert found["limits"]["cut"]["usage"]["output_tokens"] == 3
    assert found["limits"]["stopped"]["content"][0]["text"] == " w0 w1 "


def test_an_unknown_model_is_a_404(found):
    name, status, body = found["errors"]
    assert (name, status) == ("NotFoundError", 404)
    assert body["error"] == {"type": "not_found_error", "message": "model 'nowhere' not found"}


def test_a_count_is_that_of_the_message(found):
    counting = found["counting"]
    usage = counting["usage"]
    assert counting["counted"]["input_tokens"] == usage["input_tokens"] + (usage["cache_read_input_tokens"] or 0) > 20
    assert counting["error"]["error"]["type"] == "not_found_error"
