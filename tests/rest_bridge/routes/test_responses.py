import json
import re

import grpc
import pytest

from puna_client.v1 import chat_pb2, message_pb2, options_pb2, usage_pb2
from puna_rest.bodies.responses import RESPONSES
from puna_rest.request_bodies import typed
from puna_rest.translate.responses.stream import Events

FINISH = usage_pb2.Finish(reason=usage_pb2.FINISH_REASON_STOP, usage=usage_pb2.Usage(prompt_tokens=3, output_tokens=2))
CALL = message_pb2.ToolCall(id="c", name="f", arguments_json='{"b": 1.0}')


async def asked(client, body):
    async with client.post("/v1/responses", data=json.dumps(body)) as response:
        text = re.sub(r'"(created_at|completed_at)":\d+', r'"\1":0', await response.text())
        text = re.sub(r'"(fc|rs|msg|resp)_[\w]*?\d+(_\d+)?"', r'"\1_N"', text)
        return response, text


def events(text):
    found = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        first, second = block.split("\n")
        data = json.loads(second.removeprefix("data: "))
        assert list(data) == sorted(data)
        assert (first, data.pop("sequence_number")) == (f"event: {data['type']}", len(found))
        found.append(data)
    return found


async def test_an_answer_in_one_piece(core, client):
    message = message_pb2.ChatMessage(role="assistant", content="a", thinking="t")
    core.script("Chat", chat_pb2.ChatResponse(message=message, finish=FINISH))
    tool = {"type": "function", "name": "f", "parameters": {"b": 1.50, "a": {}}}
    body = {"model": "m", "input": "x", "instructions": "be", "tools": [tool], "reasoning": {"summary": "auto"}}
    response, text = await asked(client, body)
    assert response.headers["Content-Type"] == "application/json"
    assert text == (
        '{"id":"resp_N","object":"response","created_at":0,"completed_at":0,"status":"completed",'
        '"incomplete_details":null,"model":"m","previous_response_id":null,"instructions":"be","output":['
        '{"id":"rs_N","type":"reasoning","summary":[{"type":"summary_text","text":"t"}],"encrypted_content":"t"},'
        '{"id":"msg_N","type":"message","status":"completed","role":"assistant","content":['
        '{"type":"output_text","text":"a","annotations":[],"logprobs":[]}]}],"error":null,"tools":['
        '{"type":"function","name":"f","description":null,"strict":null,"parameters":{"a":{},"b":1.5}}],'
        '"tool_choice":"auto","truncation":"disabled","parallel_tool_calls":true,"text":{"format":{"type":"text"}},'
        '"top_p":1,"presence_penalty":0,"frequency_penalty":0,"top_logprobs":0,"temperature":1,'
        '"reasoning":{"summary":"auto"},"usage":{"input_tokens":3,"output_tokens":2,"total_tokens":5,'
        '"input_tokens_details":{"cached_tokens":0},"output_tokens_details":{"reasoning_tokens":0}},'
        '"max_output_tokens":null,"max_tool_calls":null,"store":false,"background":false,"service_tier":"default",'
        '"metadata":{},"safety_identifier":null,"prompt_cache_key":null}\n'
    )


async def test_a_stream_closes_one_item_before_it_opens_the_next(core, client):
    deltas = [
        chat_pb2.ChatDelta(thinking="t"),
        chat_pb2.ChatDelta(content="a"),
        chat_pb2.ChatDelta(tool_calls=[CALL]),
    ]
    core.script(
        "StreamChat",
        chat_pb2.StreamChatResponse(deltas=deltas),
        chat_pb2.StreamChatResponse(done=chat_pb2.ChatDone(finish=FINISH)),
    )
    response, text = await asked(client, {"model": "m", "input": "x", "stream": True})
    assert response.headers["Content-Type"] == "text/event-stream"
    assert response.headers["Cache-Control"] == "no-cache"
    found = events(text)
    assert [(each["type"].removeprefix("response."), each.get("output_index")) for each in found] == [
        ("created", None),
        ("in_progress", None),
        ("output_item.added", 0),
        ("reasoning_summary_text.delta", 0),
        ("reasoning_summary_text.done", 0),
        ("output_item.done", 0),
        ("output_item.added", 1),
        ("content_part.added", 1),
        ("output_text.delta", 1),
        ("output_text.done", 1),
        ("content_part.done", 1),
        ("output_item.done", 1),
        ("output_item.added", 2),
        ("function_call_arguments.delta", 2),
        ("function_call_arguments.done", 2),
        ("output_item.done", 2),
        ("completed", None),
    ]
    assert [item["type"] for item in found[-1]["response"]["output"]] == ["reasoning", "message", "function_call"]
    assert found[-1]["response"]["usage"]["total_tokens"] == 5
    assert found[13]["delta"] == '{"b":1}'


async def test_an_error_in_mid_stream_is_said(core, client, fail):
    core.script(
        "StreamChat",
        chat_pb2.StreamChatResponse(deltas=[chat_pb2.ChatDelta(content="a")]),
        fail(grpc.StatusCode.UNAVAILABLE, "BACKEND_CRASHED", "gone"),
    )
    _, text = await asked(client, {"model": "m", "input": "x", "stream": True})
    last = events(text)[-1]
    assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
    assert last["response"]["error"]["message"] == "gone"


async def test_an_error_before_the_first_event_keeps_its_status(core, client, fail):
    core.script("StreamChat", fail(grpc.StatusCode.INVALID_ARGUMENT, "MODEL_REQUIRED", "model is required"))
    response, text = await asked(client, {"input": "x", "stream": True})
    assert (response.status, response.headers["Cache-Control"]) == (400, "no-cache")
    assert text == '{"error":{"message":"model is required","type":"invalid_request_error","param":null,"code":null}}\n'


async def test_items_become_messages(core, client):
    core.script("Chat", chat_pb2.ChatResponse(finish=FINISH))
    items = [
        {"role": "User", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
        {"type": "reasoning", "encrypted_content": "why"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"x":1}'},
        {"role": "assistant", "content": "meanwhile"},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "output_text", "text": "r"}]},
        {"type": "web_search_call", "id": "w"},
        {"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,aGk="}]},
    ]
    text = {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}}
    tools = [{"type": "namespace", "name": "ns", "tools": [{"type": "function", "name": "f", "parameters": {}}]}]
    await asked(client, {"model": "m", "input": items, "text": text, "tools": tools, "max_output_tokens": 4})
    request = core.requests[0]
    request.options.ClearField("start_time")
    assert request == chat_pb2.ChatRequest(
        model="m",
        messages=[
            message_pb2.ChatMessage(role="user", content="ab"),
            message_pb2.ChatMessage(
                role="assistant",
                content="meanwhile",
                thinking="why",
                tool_calls=[message_pb2.ToolCall(id="c", name="f", arguments_json='{"x":1}')],
            ),
            message_pb2.ChatMessage(role="tool", content="r", tool_call_id="c"),
            message_pb2.ChatMessage(role="user", media=[options_pb2.Media(data=b"hi")]),
        ],
        tools=[message_pb2.Tool(type="function", name="ns.f", parameters_json="{}")],
        options=options_pb2.RequestOptions(
            options_json='{"temperature":1,"num_predict":4}',
            constraint=options_pb2.OutputConstraint(json_schema='{"type": "object"}'),
            truncate=True,
        ),
    )


@pytest.mark.parametrize(
    ("items", "text"),
    [
        ([{"type": "zz"}], 'input[0]: unknown input item type: \\"zz\\"'),
        ([{}], "input[0]: input item missing required 'type' field"),
        ([{"role": "u", "content": [{"type": "zz"}]}], "input[0]: content[0]: unknown content type: zz"),
        ([{"role": "u", "content": [{"type": "input_file"}]}], "file inputs are not currently supported"),
        ([{"type": "function_call", "arguments": "x"}], "failed to parse function call arguments: invalid character"),
    ],
)
async def test_refusals(client, items, text):
    response, answered = await asked(client, {"model": "m", "input": items})
    assert response.status == 400
    assert answered.startswith('{"error":{"message":"' + text)


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        ("q", 403, "ollama cloud is disabled: web search is unavailable"),
        ("", 502, "web_search requires a non-empty string query"),
    ],
)
async def test_a_search_without_a_cloud(core, client, query, status, text):
    call = message_pb2.ToolCall(id="c", name="web_search", arguments_json=json.dumps({"query": query}))
    core.script("Chat", chat_pb2.ChatResponse(message=message_pb2.ChatMessage(tool_calls=[call]), finish=FINISH))
    body = {"model": "m", "input": "x", "tools": [{"type": "web_search"}]}
    response, answered = await asked(client, body)
    assert response.status == status
    assert json.loads(answered)["error"] == {"message": text, "type": "api_error", "param": None, "code": None}
    core.script(
        "StreamChat",
        chat_pb2.StreamChatResponse(deltas=[chat_pb2.ChatDelta(tool_calls=[call])]),
        chat_pb2.StreamChatResponse(done=chat_pb2.ChatDone(finish=FINISH)),
    )
    found = events((await asked(client, {**body, "stream": True}))[1])
    searched = ["output_item.added", "web_search_call.in_progress", "web_search_call.searching"] if query else []
    assert [each["type"].removeprefix("response.") for each in found] == ["created", "in_progress", *searched, "failed"]
    assert found[-1]["response"]["error"] == {"code": "api_error", "message": text}
    assert found[-1]["response"]["usage"] == {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}


def kept(text):
    return {item["type"]: item["id"] for item in json.loads(text)["output"]}


async def answered(client, **fields):
    async with client.post("/v1/responses", data=json.dumps({"model": "m", "input": "x", **fields})) as response:
        return response.status, await response.text()


async def test_a_reference_stands_for_an_item_of_an_earlier_answer(core, client):
    said = message_pb2.ChatMessage(role="assistant", content="a", thinking="t", tool_calls=[CALL])
    core.script("Chat", chat_pb2.ChatResponse(message=said, finish=FINISH))
    ids = kept((await answered(client))[1])
    items = [
        {"role": "user", "content": "x"},
        {"type": "item_reference", "id": ids["reasoning"]},
        {"type": "item_reference", "id": ids["message"]},
        {"type": "item_reference", "id": ids["function_call"]},
        {"type": "function_call_output", "call_id": "c", "output": "r"},
    ]
    core.script("Chat", chat_pb2.ChatResponse(finish=FINISH))
    assert (await answered(client, input=items))[0] == 200
    user, assistant, result = core.requests[-1].messages
    assert (assistant.content, assistant.thinking, assistant.tool_calls[0].name) == ("a", "t", "f")
    assert json.loads(assistant.tool_calls[0].arguments_json) == {"b": 1}
    assert (user.content, result.content) == ("x", "r")


async def test_a_stream_keeps_its_items_before_it_says_that_it_is_complete(core, client):
    core.script(
        "StreamChat",
        chat_pb2.StreamChatResponse(
            deltas=[chat_pb2.ChatDelta(content="a")], done=chat_pb2.ChatDone(completes_delta=True, finish=FINISH)
        ),
    )
    _, text = await answered(client, stream=True)
    (item,) = events(text)[-1]["response"]["output"]
    core.script("Chat", chat_pb2.ChatResponse(finish=FINISH))
    assert (await answered(client, input=[{"type": "item_reference", "id": item["id"]}]))[0] == 200
    assert core.requests[-1].messages[0].content == "a"


async def test_an_item_that_is_not_kept_is_named(core, client):
    core.script("Chat", chat_pb2.ChatResponse(message=message_pb2.ChatMessage(content="a"), finish=FINISH))
    ids = kept((await answered(client, store=False))[1])
    for missing in ("msg_1", ids["message"]):
        status, text = await answered(client, input=[{"type": "item_reference", "id": missing}])
        assert status == 404
        assert f"input[0]: no item with id '{missing}' is kept" in json.loads(text)["error"]["message"]


async def test_an_answer_that_was_cut_is_incomplete(core, client):
    cut = usage_pb2.Finish(reason=usage_pb2.FINISH_REASON_LENGTH, usage=FINISH.usage)
    core.script("Chat", chat_pb2.ChatResponse(message=message_pb2.ChatMessage(content="a"), finish=cut))
    found = json.loads((await answered(client))[1])
    assert (found["status"], found["completed_at"]) == ("incomplete", None)
    assert found["incomplete_details"] == {"reason": "max_output_tokens"}
    assert found["output"][0]["status"] == "incomplete"
    core.script(
        "StreamChat",
        chat_pb2.StreamChatResponse(
            deltas=[chat_pb2.ChatDelta(content="a")], done=chat_pb2.ChatDone(completes_delta=True, finish=cut)
        ),
    )
    last = events((await answered(client, stream=True))[1])[-1]
    assert (last["type"], last["response"]["status"]) == ("response.incomplete", "incomplete")


async def test_text_files_are_read_and_others_refused(core, client):
    core.script("Chat", chat_pb2.ChatResponse(finish=FINISH))
    file = {"type": "input_file", "file_data": "data:text/plain;base64,aGk="}
    await answered(client, input=[{"role": "user", "content": [file]}])
    assert core.requests[-1].messages[0].content == "hi"
    for data in ("data:application/pdf;base64,aGk=", "data:text/plain;base64,/w==", "data:text/plain,hi", ""):
        status, text = await answered(client, input=[{"role": "user", "content": [{**file, "file_data": data}]}])
        assert (status, json.loads(text)["error"]["message"]) == (400, "file inputs are not currently supported")


def test_only_the_ends_of_a_stream_weigh_as_much_as_the_request():
    tools = [{"type": "function", "name": f"f{number}", "parameters": {}} for number in range(1000)]
    document, body = typed(json.dumps({"model": "m", "input": "x", "tools": tools}).encode(), RESPONSES, 10**6)
    events = Events(document, body, lambda _: None)
    piece = chat_pb2.StreamChatResponse(deltas=[chat_pb2.ChatDelta(content="a")])
    assert events.weigh(piece) >= document.weight > 3000
    events.write(piece)
    assert events.weigh(piece) < 10
    assert events.weigh(chat_pb2.StreamChatResponse(done=chat_pb2.ChatDone(finish=FINISH))) >= document.weight
