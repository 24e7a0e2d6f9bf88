import json

import pytest
from tests.rest_bridge.decoding import decoded

from puna_client.v1 import chat_pb2, message_pb2, usage_pb2
from puna_rest.bodies.responses import RESPONSES
from puna_rest.errors import Failure
from puna_rest.translate.responses.stream import Events

CALL = message_pb2.ToolCall(id="call_1", name="f", arguments_json='{"a": 1.0}')


def done(reason="STOP"):
    finish = usage_pb2.Finish(
        reason=usage_pb2.FinishReason.Value(f"FINISH_REASON_{reason}"),
        usage=usage_pb2.Usage(prompt_tokens=3, output_tokens=2),
    )
    return chat_pb2.ChatDone(finish=finish)


def read(text):
    found = []
    for each in text.strip().split("\n\n"):
        name, data = each.split("\n")
        value = json.loads(data.removeprefix("data: "))
        assert value["type"] == name.removeprefix("event: ")
        found.append(value)
    return found


class Stream:
    """A stream of one request and the items that it keeps."""

    def __init__(self, **body):
        self.kept = []
        self.events = Events(*decoded(RESPONSES, {"model": "m"} | body), self.kept.append, call_deltas=True)

    def write(self, *deltas, done=None):
        message = chat_pb2.StreamChatResponse(deltas=[chat_pb2.ChatDelta(**each) for each in deltas])
        if done is not None:
            message.done.CopyFrom(done)
        return read(self.events.write(message))


def test_a_text_opens_an_item_a_part_and_closes_both():
    stream = Stream()
    found = stream.write({"content": "a"}, {"content": "b"}, done=done())
    assert [each["type"].removeprefix("response.") for each in found] == [
        *("created", "in_progress", "output_item.added", "content_part.added", "output_text.delta"),
        *("output_text.delta", "output_text.done", "content_part.done", "output_item.done", "completed"),
    ]
    assert [each["sequence_number"] for each in found] == list(range(len(found)))
    assert found[6]["text"] == "ab"
    assert found[-1]["response"]["output"] == [found[-2]["item"]] == stream.kept[0]
    assert found[-1]["response"]["usage"]["total_tokens"] == 5
    assert found[0]["response"]["usage"] is None


def test_numbers_go_on_in_the_next_message():
    stream = Stream()
    first = stream.write({"content": "a"})
    assert stream.write({"content": "b"})[0]["sequence_number"] == first[-1]["sequence_number"] + 1
    assert stream.kept == []


def test_thinking_is_an_item_of_its_own():
    found = Stream().write({"thinking": "t"}, {"content": "a"}, done=done())
    added = [each for each in found if each["type"] == "response.output_item.added"]
    assert [(each["item"]["type"], each["output_index"]) for each in added] == [("reasoning", 0), ("message", 1)]
    finished = [each["item"] for each in found if each["type"] == "response.output_item.done"]
    assert finished[0]["encrypted_content"] == "t"


def test_a_call_has_its_arguments_at_once_and_ends_the_text():
    found = Stream().write({"content": "a"}, {"tool_calls": [CALL]}, {"content": "late"}, done=done())
    assert "late" not in json.dumps(found)
    (arguments,) = [each["arguments"] for each in found if each["type"] == "response.function_call_arguments.done"]
    assert arguments == '{"a":1}'
    assert [each["type"] for each in found[-1]["response"]["output"]] == ["message", "function_call"]


def test_an_answer_that_was_cut_ends_as_incomplete():
    found = Stream().write({"content": "a"}, done=done("LENGTH"))
    assert found[-1]["type"] == "response.incomplete"
    assert found[-2]["item"]["status"] == "incomplete"


@pytest.mark.parametrize(
    ("arguments", "message", "searches"),
    [
        ('{"query": "cats"}', "ollama cloud is disabled: web search is unavailable", True),
        ("{}", "web_search requires a non-empty string query", False),
    ],
)
def test_a_search_fails_the_response(arguments, message, searches):
    stream = Stream(tools=[{"type": "web_search"}])
    asked = message_pb2.ToolCall(id="1", name="web_search", arguments_json=arguments)
    found = stream.write({"tool_calls": [asked]}, done=done())
    assert found[-1]["type"] == "response.failed"
    assert found[-1]["response"]["error"] == {"code": "api_error", "message": message}
    assert ("response.web_search_call.searching" in [each["type"] for each in found]) is searches
    assert stream.kept == []


def test_an_error_ends_the_stream():
    stream = Stream(reasoning={"effort": "low"})
    stream.write({"content": "a"})
    (failed,) = read(stream.events.write_error(Failure(500, "broken")))
    assert failed["response"]["error"] == {"code": "server_error", "message": "broken"}
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["reasoning"] == {"effort": "low", "summary": None}


def test_events_that_repeat_the_request_weigh_as_much():
    stream = Stream(instructions="x" * 5000)
    small = chat_pb2.StreamChatResponse(deltas=[chat_pb2.ChatDelta(content="a")])
    end = chat_pb2.StreamChatResponse(done=done())
    first = stream.events.weigh(small)
    stream.events.write(small)
    later = stream.events.weigh(small)
    assert first - later == decoded(RESPONSES, {"model": "m", "instructions": "x" * 5000})[0].weight
    assert stream.events.weigh(end) > later


PARTS = [
    message_pb2.ToolCallDelta(index=0, id="call_1", name="f", arguments_json='{"a"'),
    message_pb2.ToolCallDelta(index=0, arguments_json=":1}"),
    message_pb2.ToolCallDelta(index=1, id="call_2", name="g", arguments_json="{}"),
]


def test_a_call_that_comes_in_parts_is_one_item():
    second = message_pb2.ToolCall(id="call_2", index=1, name="g", arguments_json="{}")
    found = Stream().write(
        {"content": "x"},
        {"tool_call_deltas": PARTS[:1]},
        {"tool_call_deltas": PARTS[1:]},
        {"tool_calls": [CALL, second]},
        done=done(),
    )
    kinds = [each["type"].removeprefix("response.").removeprefix("function_call_") for each in found]
    assert kinds[8:-1] == [
        *("output_item.added", "arguments.delta", "arguments.delta", "arguments.done", "output_item.done"),
        *("output_item.added", "arguments.delta", "arguments.done", "output_item.done"),
    ]
    assert found[11]["arguments"] == found[9]["delta"] + found[10]["delta"] == '{"a":1}'
    calls = [item for item in found[-1]["response"]["output"] if item["type"] == "function_call"]
    assert [(each["call_id"], each["name"], each["arguments"], each["status"]) for each in calls] == [
        ("call_1", "f", '{"a":1}', "completed"),
        ("call_2", "g", "{}", "completed"),
    ]


def test_a_call_that_is_cut_is_an_incomplete_item():
    found = Stream().write({"tool_call_deltas": PARTS[:1]}, done=done("LENGTH"))
    (item,) = found[-1]["response"]["output"]
    assert (item["status"], item["arguments"]) == ("incomplete", '{"a"')
    assert "response.function_call_arguments.done" not in [each["type"] for each in found]
