"""The openai package against /v1."""

import json
import math

import pytest

SCRIPT = "drive_openai.py"
ANSWER = "The capital of France is Paris."


def test_chat(found):
    answer = found["chat"]
    (choice,) = answer["choices"]
    assert choice["message"]["content"] == ANSWER
    assert choice["finish_reason"] == "stop"
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert answer["system_fingerprint"] == "fp_ollama"


def test_stream(found):
    stream = found["stream"]
    assert "".join(stream["pieces"]) == ANSWER
    assert len(stream["pieces"]) > 3
    assert stream["ids"] == 1
    assert stream["finish"] == ["stop"]
    assert stream["last_choices"] == 0
    # The second of two equal prompts finds more of it cached.
    usages = [dict(stream["usage"]), dict(found["chat"]["usage"])]
    cached = [(each.pop("prompt_tokens_details") or {"cached_tokens": 0})["cached_tokens"] for each in usages]
    assert all(count < usages[0]["prompt_tokens"] for count in cached)
    assert usages[0] == usages[1]
    assert found["stream_async"] == ANSWER


def test_the_stream_helper_puts_calls_together(found):
    helped = found["stream_helper"]
    assert "tool_calls.function.arguments.done" in helped["kinds"]
    assert helped["message"]["content"] == "I will check. "
    calls = helped["message"]["tool_calls"]
    assert [json.loads(call["function"]["arguments"]) for call in calls] == [{"city": "Rome"}, {"city": "Oslo"}]
    assert len({call["id"] for call in calls}) == 2


def test_the_arguments_of_a_call_come_in_parts(found):
    first, second = found["tools_in_parts"]["parts"]
    assert (first["index"], first["type"], first["function"]["name"]) == (0, "function", "get_weather")
    assert first["id"]
    assert (second["index"], second["id"], second["function"]["name"]) == (0, None, None)
    joined = first["function"]["arguments"] + second["function"]["arguments"]
    assert json.loads(joined) == {"city": "Paris", "days": 2}
    assert found["tools_in_parts"]["put_together"] == [joined]
    responses = found["responses_tools_in_parts"]
    assert len(responses["parts"]) == 2
    assert "".join(responses["parts"]) == responses["arguments"] == joined
    assert responses["status"] == "completed"


def test_tools(found):
    first, second = found["tools"]["first"], found["tools"]["second"]
    assert first["finish_reason"] == "tool_calls"
    (call,) = first["message"]["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}
    assert second["finish_reason"] == "stop"
    assert "18 degrees" in second["message"]["content"]


def test_thinking_comes_as_reasoning(found):
    message = found["thinking"]
    assert "7" in message["reasoning"]
    assert message["content"] == "3 + 4 = 7."


def test_response_format(found):
    assert json.loads(found["json_schema"]) == {"name": "Anna", "age": 31}
    assert found["json_parsed"] == {"name": "Anna", "age": 31}
    assert isinstance(json.loads(found["json_object"]), dict)


def test_logprobs(found):
    tokens = found["logprobs"]["tokens"]
    assert "".join(each["token"] for each in tokens).endswith(found["logprobs"]["text"])
    for each in tokens:
        assert bytes(each["bytes"]) == each["token"].encode()
        assert [top["logprob"] for top in each["top_logprobs"]] == sorted(
            (top["logprob"] for top in each["top_logprobs"]), reverse=True
        )
        assert len(each["top_logprobs"]) == 3
        assert each["logprob"] <= 0


def test_embeddings(found):
    vectors = found["embeddings"]
    one, two, again = vectors["packed"]
    assert vectors["indexes"] == [0, 1, 2]
    assert one == pytest.approx(again, abs=1e-5)
    assert one != pytest.approx(two, abs=1e-2)
    assert vectors["plain"] == pytest.approx(one, abs=1e-6)
    assert len(vectors["short"]) == 8
    assert math.hypot(*vectors["short"]) == pytest.approx(1, abs=1e-5)
    assert vectors["usage"]["total_tokens"] == vectors["usage"]["prompt_tokens"] > 0


def test_completions(found):
    (choice,) = found["completions"]["whole"]["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("Hello, world", "length")
    assert found["completions"]["pieces"] == ["Hello", ",", " world", "!", ""]


def test_models(found):
    assert {"llamita:latest", "scripted:latest", "embedder:latest"} <= set(found["models"]["list"])
    assert found["models"]["retrieved"]["id"] == "llamita"
    assert found["models"]["retrieved"]["owned_by"] == "library"


def test_responses(found):
    answer = found["responses"]
    assert (answer["text"], answer["status"]) == (ANSWER, "completed")
    assert answer["usage"]["total_tokens"] > 10
    (call,) = [item for item in answer["called"] if item["type"] == "function_call"]
    assert call["name"] == "get_weather"
    assert json.loads(call["arguments"]) == {"city": "Paris"}


def test_responses_streamed(found):
    stream = found["responses_stream"]
    assert stream["kinds"][0] == "response.created"
    assert stream["kinds"][-1] == "response.completed"
    assert stream["numbers"] == list(range(len(stream["numbers"])))
    assert "".join(stream["pieces"]) == stream["text"] == ANSWER


def test_errors_have_their_classes(found):
    name, status, body = found["errors"]["missing"]
    assert (name, status, body["message"]) == ("NotFoundError", 404, "model 'nowhere' not found")
    name, status, body = found["errors"]["temperature"]
    assert (name, status, body["type"]) == ("BadRequestError", 400, "invalid_request_error")


@pytest.mark.parametrize("endpoint", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"])
def test_a_batch_of_each_endpoint(found, endpoint):
    one = found["batch"][endpoint]
    batch = one["batch"]
    assert (batch["status"], batch["endpoint"], batch["metadata"]) == ("completed", endpoint, {"for": "test"})
    assert batch["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
    assert batch["created_at"] <= batch["in_progress_at"] <= batch["completed_at"] <= batch["expires_at"]
    assert one["input"]
    assert one["good"]["custom_id"] == "good"
    assert one["good"]["response"]["status_code"] == 200
    assert (one["bad"]["custom_id"], one["bad"]["response"]["status_code"]) == ("bad", 404)
    assert "nowhere" in one["bad"]["response"]["body"]["error"]["message"]
    assert (one["file"]["purpose"], one["file"]["status"]) == ("batch_output", "processed")


def test_the_answers_of_a_batch_are_those_of_the_routes(found):
    bodies = {endpoint: one["good"]["response"]["body"] for endpoint, one in found["batch"].items()}
    assert bodies["/v1/chat/completions"]["choices"][0]["message"]["content"] == ANSWER
    assert [each["index"] for each in bodies["/v1/embeddings"]["data"]] == [0, 1]
    assert bodies["/v1/responses"]["output"][-1]["content"][0]["text"] == ANSWER


def test_batches_and_files_are_listed_cancelled_and_deleted(found):
    lists = found["batch_lists"]
    assert lists.pop("cancelled") in ("cancelled", "completed")
    assert lists == {"batches": True, "files": True, "deleted": True, "left": False}
