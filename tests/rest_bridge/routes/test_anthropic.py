import json
import re

import grpc
import pytest

from puna_client.v1 import chat_pb2, message_pb2, options_pb2, tokenize_pb2, usage_pb2

FINISH = usage_pb2.Finish(reason=usage_pb2.FINISH_REASON_STOP, usage=usage_pb2.Usage(prompt_tokens=3, output_tokens=2))
CALL = message_pb2.ToolCall(id="c", name="f", arguments_json='{"b": 1.0}')


async def asked(client, body):
    async with client.post("/v1/messages", data=json.dumps(body)) as response:
        return response, re.sub(r'"(msg|req)_[0-9a-f]{24}"', r'"\1_N"', await response.text())


def body(**fields):
    return {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}], **fields}


@pytest.mark.parametrize(
    ("message", "reason", "content", "stop_reason"),
    [
        (message_pb2.ChatMessage(content="a"), "STOP", '[{"type":"text","text":"a"}]', "end_turn"),
        (message_pb2.ChatMessage(), "LENGTH", "[]", "max_tokens"),
        (
            message_pb2.ChatMessage(thinking="t", tool_calls=[CALL]),
            "STOP",
            '[{"type":"thinking","thinking":"t"},{"type":"tool_use","id":"c","name":"f","input":{"b":1}}]',
            "tool_use",
        ),
    ],
)
async def test_an_answer_in_one_piece(core, client, message, reason, content, stop_reason):
    finish = usage_pb2.Finish(reason=getattr(usage_pb2, "FINISH_REASON_" + reason), usage=FINISH.usage)
    core.script("Chat", chat_pb2.ChatResponse(message=message, finish=finish))
    response, text = await asked(client, body())
    assert response.headers["Content-Type"] == "application/json"
    assert text == (
        f'{{"id":"msg_N","type":"message","role":"assistant","model":"m","content":{content},'
        f'"stop_reason":"{stop_reason}","usage":{{"input_tokens":3,"output_tokens":2}}}}\n'
    )


def event(kind, rest):
    return f'event: {kind}\ndata: {{"type":"{kind}"{rest}}}\n\n'


async def test_a_stream(core, client):
    deltas = [
        chat_pb2.ChatDelta(thinking="t"),
        chat_pb2.ChatDelta(content="a"),
        chat_pb2.ChatDelta(tool_calls=[CALL]),
        chat_pb2.ChatDelta(tool_calls=[CALL]),
    ]
    core.script(
        "StreamChat",
        chat_pb2.StreamChatResponse(deltas=deltas),
        chat_pb2.StreamChatResponse(done=chat_pb2.ChatDone(finish=FINISH)),
    )
    response, text = await asked(client, body(stream=True))
    assert response.headers["Content-Type"] == "text/event-stream"
    assert text == (
        event(
            "message_start",
            ',"message":{"id":"msg_N","type":"message","role":"assistant","model":"m","content":[],'
            '"usage":{"input_tokens":1,"output_tokens":0}}',
        )
        + event("content_block_start", ',"index":0,"content_block":{"type":"thinking","thinking":""}')
        + event("content_block_delta", ',"index":0,"delta":{"type":"thinking_delta","thinking":"t"}')
        + event("content_block_stop", ',"index":0')
        + event("content_block_start", ',"index":1,"content_block":{"type":"text","text":""}')
        + event("content_block_delta", ',"index":1,"delta":{"type":"text_delta","text":"a"}')
        + event("content_block_stop", ',"index":1')
        + event("content_block_start", ',"index":2,"content_block":{"type":"tool_use","id":"c","name":"f","input":{}}')
        + event("content_block_delta", ',"index":2,"delta":{"type":"input_json_delta","partial_json":"{\\"b\\":1}"}')
        + event("content_block_stop", ',"index":2')
        + event("message_delta", ',"delta":{"stop_reason":"tool_use"},"usage":{"input_tokens":3,"output_tokens":2}')
        + event("message_stop", "")
    )


async def test_errors(core, client, fail):
    core.script("Chat", fail(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "no"))
    response, text = await asked(client, body())
    assert response.status == 404
    assert text == '{"type":"error","error":{"type":"not_found_error","message":"no"},"request_id":"req_N"}\n'
    core.script(
        "StreamChat",
        chat_pb2.StreamChatResponse(deltas=[chat_pb2.ChatDelta(content="a")]),
        fail(grpc.StatusCode.UNAVAILABLE, "BACKEND_CRASHED", "gone"),
    )
    _, text = await asked(client, body(stream=True))
    assert text.endswith(event("error", ',"error":{"type":"api_error","message":"gone"}'))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"model": ""}, "model is required"),
        ({"max_tokens": 0}, "max_tokens is required and must be positive"),
        ({"messages": []}, "messages is required"),
        ({"messages": [{"role": "user"}]}, "unexpected end of JSON input"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "invalid image source"),
        (
            {"messages": [{"role": "a", "content": [{"type": "tool_use"}]}]},
            "tool_use block missing required 'id' field",
        ),
        (
            {"tools": [{"name": "x", "input_schema": 3}]},
            'invalid input_schema for tool \\"x\\": json: cannot unmarshal',
        ),
    ],
)
async def test_refusals(client, fields, text):
    response, answered = await asked(client, body(**fields))
    assert (response.status, response.headers["Content-Type"]) == (400, "application/json; charset=utf-8")
    assert answered.startswith('{"type":"error","error":{"type":"invalid_request_error","message":"' + text)


async def test_blocks_become_messages(core, client):
    core.script("Chat", chat_pb2.ChatResponse(finish=FINISH))
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    await asked(
        client,
        body(
            system=[{"type": "text", "text": "S"}, {"type": "text", "text": "T"}],
            messages=[
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, picture]},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "t", "signature": "s"},
                        {"type": "tool_use", "id": "c", "name": "f", "input": {"x": 1}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "and"},
                        {
                            "type": "tool_result",
                            "tool_use_id": "c",
                            "content": [{"type": "text", "text": "r"}, picture],
                        },
                    ],
                },
            ],
            temperature=0.5,
            top_k=3,
            stop_sequences=["z"],
            thinking={"type": "enabled", "budget_tokens": 5},
            tools=[{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
            tool_choice={"type": "any"},
        ),
    )
    request = core.requests[0]
    request.options.ClearField("start_time")
    media = [options_pb2.Media(data=b"hi")]
    assert request == chat_pb2.ChatRequest(
        model="m",
        messages=[
            message_pb2.ChatMessage(role="system", content="ST"),
            message_pb2.ChatMessage(role="user", parts=[{"text": "a"}, {"text": "b"}, {"media": media[0]}]),
            message_pb2.ChatMessage(
                role="assistant",
                thinking="t",
                tool_calls=[message_pb2.ToolCall(id="c", name="f", arguments_json='{"x": 1}')],
            ),
            message_pb2.ChatMessage(role="tool", parts=[{"text": "r"}, {"media": media[0]}], tool_call_id="c"),
            message_pb2.ChatMessage(role="user", content="and"),
        ],
        tools=[message_pb2.Tool(type="function", name="f", description="d", parameters_json='{"type": "object"}')],
        tool_choice=message_pb2.ToolChoice(mode=message_pb2.ToolChoice.MODE_REQUIRED),
        options=options_pb2.RequestOptions(
            options_json='{"num_predict":9,"temperature":0.5,"top_k":3,"stop":["z"]}',
            truncate=True,
            thinking=options_pb2.THINKING_LEVEL_ON,
            thinking_if_possible=True,
            thinking_budget=5,
        ),
    )


@pytest.mark.parametrize(
    ("fields", "level"),
    [
        ({}, "UNSPECIFIED"),
        ({"thinking": {"type": "disabled"}}, "OFF"),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": " XHigh"}}, "HIGH"),
        ({"output_config": {"effort": "max"}}, "MAX"),
        ({"output_config": {"effort": "zz"}}, "UNSPECIFIED"),
    ],
)
async def test_thinking(core, client, fields, level):
    core.script("Chat", chat_pb2.ChatResponse(finish=FINISH))
    await asked(client, body(**fields))
    assert core.requests[0].options.thinking == getattr(options_pb2, "THINKING_LEVEL_" + level)


SEARCH = {"type": "web_search_20250305", "name": "web_search"}


def searching(query):
    return message_pb2.ToolCall(id="c", name="web_search", arguments_json=json.dumps({"query": query}))


@pytest.mark.parametrize(("query", "code"), [("q", "unavailable"), ("", "invalid_request"), (3, "invalid_request")])
async def test_a_search_without_a_cloud(core, client, query, code):
    said = message_pb2.ChatMessage(content="I look.", tool_calls=[CALL, searching(query)])
    core.script("Chat", chat_pb2.ChatResponse(message=said, finish=FINISH))
    _, text = await asked(client, body(tools=[SEARCH]))
    told = json.loads(text)
    search_id = told["content"][0]["id"]
    assert told["content"] == [
        {
            "type": "server_tool_use",
            "id": search_id,
            "name": "web_search",
            "input": {"query": query if query == "q" else ""},
        },
        {
            "type": "web_search_tool_result",
            "tool_use_id": search_id,
            "content": {"type": "web_search_tool_result_error", "error_code": code},
        },
    ]
    assert told["stop_reason"] == "end_turn"


async def test_a_search_in_a_stream_without_a_cloud(core, client):
    core.script(
        "StreamChat",
        chat_pb2.StreamChatResponse(
            deltas=[chat_pb2.ChatDelta(content="a"), chat_pb2.ChatDelta(tool_calls=[searching("q")])]
        ),
        chat_pb2.StreamChatResponse(done=chat_pb2.ChatDone(finish=FINISH)),
    )
    response, text = await asked(client, body(tools=[SEARCH], stream=True))
    assert response.headers["Content-Type"] == "text/event-stream"
    blocks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    begun = [each["content_block"]["type"] for each in blocks if each["type"] == "content_block_start"]
    assert begun == ["text", "server_tool_use", "web_search_tool_result"]
    assert blocks[-2]["delta"] == {"stop_reason": "end_turn"}


async def test_clients_of_anthropics_api_get_signed_thinking(core, client):
    core.script("Chat", chat_pb2.ChatResponse(message=message_pb2.ChatMessage(thinking="t"), finish=FINISH))
    headers = {"anthropic-version": "2023-06-01"}
    async with client.post("/v1/messages", data=json.dumps(body()), headers=headers) as response:
        (block,) = (await response.json())["content"]
    assert list(block) == ["type", "thinking", "signature"]
    core.script(
        "StreamChat",
        chat_pb2.StreamChatResponse(deltas=[chat_pb2.ChatDelta(thinking="t")]),
        chat_pb2.StreamChatResponse(done=chat_pb2.ChatDone(finish=FINISH)),
    )
    async with client.post("/v1/messages", data=json.dumps(body(stream=True)), headers=headers) as response:
        text = await response.text()
    assert (
        event("content_block_start", ',"index":0,"content_block":{"type":"thinking","thinking":"","signature":""}')
        in text
    )
    delta = f',"index":0,"delta":{{"type":"signature_delta","signature":"{block["signature"]}"}}'
    assert event("content_block_delta", delta) + event("content_block_stop", ',"index":0') in text


DOCUMENT = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "The key is blue."}}
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="}}


async def test_the_text_of_documents_reaches_the_model(core, client):
    core.script("Chat", chat_pb2.ChatResponse(finish=FINISH))
    blocks = {
        "type": "document",
        "title": "T",
        "source": {"type": "content", "content": [{"type": "text", "text": "d"}]},
    }
    found = {"type": "search_result", "source": "S", "title": "U", "content": [{"type": "text", "text": "e"}]}
    content = [
        {"type": "text", "text": "a"},
        DOCUMENT,
        blocks,
        {"type": "text", "text": "b"},
        {"type": "text", "text": "c"},
        {"type": "tool_result", "tool_use_id": "i", "content": [DOCUMENT, found, {"type": "text", "text": "r"}]},
    ]
    await asked(client, body(messages=[{"role": "user", "content": content}]))
    result, said = core.requests[0].messages
    assert said.content == "a\n\nThe key is blue.\n\nT\nd\n\nbc"
    assert (result.role, result.content) == ("tool", "The key is blue.\n\nU\nS\ne\n\nr")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([PDF], 'document source type \\"base64\\" (application/pdf) is not supported: send the document\'s text'),
        ([{"type": "document"}], 'document source type \\"\\" is not supported'),
        ([{"type": "container_upload"}], 'content block type \\"container_upload\\" is not supported'),
        ([{"type": "tool_result", "content": [PDF]}], 'document source type \\"base64\\" (application/pdf)'),
        ([{"type": "tool_result", "content": [{"type": "video"}]}], 'content block type \\"video\\" is not supported'),
    ],
)
async def test_a_block_that_cannot_be_used_is_refused_by_name(client, content, text):
    response, answered = await asked(client, body(messages=[{"role": "user", "content": content}]))
    assert response.status == 400
    assert text in answered


async def counted(client, **fields):
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], **fields}
    async with client.post("/v1/messages/count_tokens", data=json.dumps(body)) as response:
        return response.status, re.sub(r'"req_[0-9a-f]{24}"', '"req_N"', await response.text())


async def test_a_count_is_that_of_the_same_request(core, client):
    core.script("CountTokens", tokenize_pb2.CountTokensResponse(prompt_tokens=12, context_length=64))
    core.script("Chat", chat_pb2.ChatResponse(finish=FINISH))
    fields = {
        "system": [{"type": "text", "text": "s"}],
        "messages": [
            {"role": "user", "content": [{"type": "image", "source": {"type": "base64", "data": "aGk="}}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "i", "name": "f", "input": {"a": 1}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "i", "content": "r"}]},
        ],
        "tools": [{"name": "f", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "any"},
        "thinking": {"type": "enabled", "budget_tokens": 2000},
    }
    assert await counted(client, **fields) == (200, '{"input_tokens":12}\n')
    await asked(client, body(**fields))
    counting, running = core.requests
    # The same but for the length of the answer and the arrival.
    running.options.options_json = "{}"
    counting.chat.options.start_time.CopyFrom(running.options.start_time)
    assert counting == tokenize_pb2.CountTokensRequest(chat=running)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model": ""}, "model is required"),
        ({"messages": []}, "messages is required"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, 'content block type \\"video\\"'),
    ],
)
async def test_counts_that_are_refused_have_anthropics_form(client, fields, said):
    status, text = await counted(client, **fields)
    assert status == 400
    assert text.startswith('{"type":"error","error":{"type":"invalid_request_error","message":')
    assert said in text


async def test_an_error_of_a_count_has_anthropics_form(core, client, fail):
    core.script("CountTokens", fail(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "model 'm' not found"))
    assert await counted(client) == (
        404,
        '{"type":"error","error":{"type":"not_found_error","message":"model \'m\' not found"},"request_id":"req_N"}\n',
    )
