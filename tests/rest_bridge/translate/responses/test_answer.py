import pytest
from tests.rest_bridge.decoding import decoded

from puna_client.v1 import message_pb2, usage_pb2
from puna_rest.bodies.responses import RESPONSES
from puna_rest.translate.parts import Part
from puna_rest.translate.responses import answer

CALL = message_pb2.ToolCall(id="call_1", name="f", arguments_json='{"a": 1.0}')

ORDER = (
    *("id", "object", "created_at", "completed_at", "status", "incomplete_details", "model", "previous_response_id"),
    *("instructions", "output", "error", "tools", "tool_choice", "truncation", "parallel_tool_calls", "text", "top_p"),
    *("presence_penalty", "frequency_penalty", "top_logprobs", "temperature", "reasoning", "usage"),
    *("max_output_tokens", "max_tool_calls", "store", "background", "service_tier", "metadata", "safety_identifier"),
    "prompt_cache_key",
)


def finish(reason="STOP"):
    return usage_pb2.Finish(
        reason=usage_pb2.FinishReason.Value(f"FINISH_REASON_{reason}"),
        usage=usage_pb2.Usage(prompt_tokens=3, output_tokens=2),
    )


def of(part, **body):
    return answer.full_answer(*decoded(RESPONSES, {"model": "m"} | body), part)


def test_items_stand_in_the_order_thinking_text_calls():
    found = of(Part(content="a", thinking="t", tool_calls=(CALL,), finish=finish()))
    assert [each["type"] for each in found["output"]] == ["reasoning", "message", "function_call"]
    reasoning, message, call = found["output"]
    assert reasoning["encrypted_content"] == reasoning["summary"][0]["text"] == "t"
    assert message["content"][0] == {"type": "output_text", "text": "a", "annotations": [], "logprobs": []}
    assert (call["call_id"], call["name"], call["arguments"]) == ("call_1", "f", '{"a":1}')


@pytest.mark.parametrize(
    ("part", "kinds"),
    [
        (Part(finish=finish()), ["message"]),
        (Part(tool_calls=(CALL,), finish=finish()), ["function_call"]),
        (Part(thinking="t", finish=finish()), ["reasoning", "message"]),
    ],
)
def test_an_answer_without_calls_has_a_message_even_if_it_is_empty(part, kinds):
    assert [each["type"] for each in of(part)["output"]] == kinds


def test_an_answer_that_was_cut_is_incomplete():
    found = of(Part(content="a", finish=finish("LENGTH")))
    assert (found["status"], found["completed_at"]) == ("incomplete", None)
    assert found["incomplete_details"] == {"reason": "max_output_tokens"}
    assert found["output"][0]["status"] == "incomplete"
    called = of(Part(content="a", tool_calls=(CALL,), finish=finish("LENGTH")))
    assert [each["status"] for each in called["output"]] == ["completed", "completed"]


def test_the_request_comes_back_in_the_answer():
    found = of(
        Part(finish=finish()),
        temperature=0,
        top_p=0.5,
        truncation="auto",
        instructions="i",
        max_output_tokens=9,
        background=True,
        reasoning={"effort": "low"},
        text={"format": {"type": "json_schema", "name": "n", "schema": {"a": "<", "b": [1.0]}, "strict": False}},
        tools=[{"type": "function", "name": "f", "parameters": {"b": 1, "a": 2}}],
    )
    assert (found["temperature"], found["top_p"], found["truncation"], found["instructions"]) == (0, 0.5, "auto", "i")
    assert (found["max_output_tokens"], found["background"], found["reasoning"]) == (9, True, {"effort": "low"})
    assert found["text"]["format"] == {
        "type": "json_schema",
        "name": "n",
        "schema": '{"a":"\\u003c","b":[1.0]}',
        "strict": False,
    }
    assert found["tools"] == [
        {"type": "function", "name": "f", "description": None, "strict": None, "parameters": '{"a":2,"b":1}'}
    ]


def test_fields_have_ollamas_order_and_defaults():
    found = of(Part(finish=finish()))
    assert tuple(found) == ORDER
    assert (found["temperature"], found["top_p"], found["truncation"]) == (1.0, 1.0, "disabled")
    assert (found["instructions"], found["reasoning"], found["text"]) == (None, None, {"format": {"type": "text"}})
    assert found["usage"]["total_tokens"] == 5


def test_ids_are_hard_to_guess():
    numbers = {answer.new_number() for _ in range(100)}
    assert len(numbers) == 100
    assert max(numbers) > 10**21
