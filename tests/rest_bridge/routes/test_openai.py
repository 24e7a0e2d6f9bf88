import json
import re

import grpc
import pytest

from puna_client.v1 import chat_pb2, generate_pb2, message_pb2, models_pb2, options_pb2, usage_pb2
from puna_rest.zstd import zstd

FINISH = usage_pb2.Finish(reason=usage_pb2.FINISH_REASON_STOP, usage=usage_pb2.Usage(prompt_tokens=3, output_tokens=2))
USAGE = '"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}'
CALL = message_pb2.ToolCall(id="c", index=0, name="f", arguments_json='{"b": 1.0, "a": "<"}')
CALLS = (
    '"tool_calls":[{"id":"c","index":0,"type":"function",'
    '"function":{"name":"f","arguments":"{\\"b\\":1,\\"a\\":\\"\\\\u003c\\"}"}}]'
)
CHUNK = (
    'data: {"id":"chatcmpl-N","object":"chat.completion.chunk","created":N,"model":"m",'
    '"system_fingerprint":"fp_ollama","choices":['
)


async def asked(client, path, body):
    async with client.post(path, data=body if isinstance(body, str) else json.dumps(body)) as response:
        text = re.sub(r'"created":\d+', '"created":N', await response.text())
        return (
            response.status,
            response.headers["Content-Type"],
            re.sub(r'"id":"(chat)?cmpl-\d+"', r'"id":"\1cmpl-N"', text),
        )


def chunk(delta, rest='"finish_reason":null'):
    return f'{CHUNK}{{"index":0,"delta":{{{delta}}},{rest}}}]}}\n\n'


def chat(**body):
    return {"model": "m", "messages": [{"role": "user", "content": "x"}], **body}


async def test_an_answer_in_one_piece(core, client):
    message = message_pb2.ChatMessage(role="assistant", content="", thinking="t", tool_calls=[CALL])
    core.script("Chat", chat_pb2.ChatResponse(message=message, finish=FINISH))
    assert await asked(client, "/v1/chat/completions", chat()) == (
        200,
        "application/json",
        '{"id":"chatcmpl-N","object":"chat.completion","created":N,"model":"m","system_fingerprint":"fp_ollama",'
        f'"choices":[{{"index":0,"message":{{"role":"assistant","content":"","reasoning":"t",{CALLS}}},'
        f'"finish_reason":"tool_calls"}}],{USAGE}}}\n',
    )


async def test_a_stream(core, client):
    entry = usage_pb2.TokenLogprob(text="a", logprob=-1)
    deltas = [
        chat_pb2.ChatDelta(thinking="t"),
        chat_pb2.ChatDelta(content="a", thinking="u", logprobs=[entry]),
        chat_pb2.ChatDelta(tool_calls=[CALL]),
    ]
    core.script(
        "StreamChat",
        chat_pb2.StreamChatResponse(deltas=deltas),
        chat_pb2.StreamChatResponse(done=chat_pb2.ChatDone(finish=FINISH)),
    )
    status, kind, text = await asked(
        client, "/v1/chat/completions", chat(stream=True, stream_options={"include_usage": True})
    )
    assert (status, kind) == (200, "text/event-stream")
    assert text == (
        chunk('"role":"assistant","content":"","reasoning":"t"')
        + chunk(
            '"reasoning":"u"', '"finish_reason":null,"logprobs":{"content":[{"token":"a","logprob":-1,"bytes":[97]}]}'
        )
        + chunk('"content":"a"')
        + chunk(f'"content":"",{CALLS}')
        + chunk("", '"finish_reason":"tool_calls"')
        + f"{CHUNK}],{USAGE}}}\n\n"
        + "data: [DONE]\n\n"
    )


async def test_an_empty_stream_still_has_a_role(core, client):
    core.script("StreamChat", chat_pb2.StreamChatResponse(done=chat_pb2.ChatDone(finish=FINISH)))
    _, _, text = await asked(client, "/v1/chat/completions", chat(stream=True))
    assert text == (chunk('"role":"assistant","content":""') + chunk("", '"finish_reason":"stop"') + "data: [DONE]\n\n")


async def test_an_error_in_mid_stream_is_said(core, client, fail):
    core.script(
        "StreamChat",
        chat_pb2.StreamChatResponse(deltas=[chat_pb2.ChatDelta(content="a")]),
        fail(grpc.StatusCode.UNAVAILABLE, "BACKEND_CRASHED", "gone"),
    )
    _, _, text = await asked(client, "/v1/chat/completions", chat(stream=True))
    error = 'data: {"error":{"message":"gone","type":"api_error","param":null,"code":null}}\n\n'
    assert text == chunk('"role":"assistant","content":"a"') + error


@pytest.mark.parametrize("stream", [True, False])
async def test_an_error_of_the_core_ends_in_a_newline_and_one_of_the_bridge_does_not(core, client, fail, stream):
    failed = fail(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "model 'm' not found")
    core.script("Chat", failed)
    core.script("StreamChat", failed)
    assert await asked(client, "/v1/chat/completions", chat(stream=stream)) == (
        404,
        "application/json",
        '{"error":{"message":"model \'m\' not found","type":"not_found_error","param":null,"code":null}}\n',
    )
    assert await asked(client, "/v1/chat/completions", chat(stream=stream, messages=[])) == (
        400,
        "application/json; charset=utf-8",
        '{"error":{"message":"[] is too short - \'messages\'","type":"invalid_request_error",'
        '"param":null,"code":null}}',
    )


async def test_everything_a_body_says_reaches_the_core(core, client):
    core.script("Chat", chat_pb2.ChatResponse(finish=FINISH))
    arguments = '{"city": "P"}'
    await asked(
        client,
        "/v1/chat/completions",
        chat(
            messages=[
                {"role": "Developer", "content": "d"},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "x"},
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
                        {"type": "input_audio", "input_audio": {"data": "aGk="}},
                    ],
                },
                {"role": "assistant", "tool_calls": [{"id": "i", "function": {"name": "f", "arguments": arguments}}]},
                {"role": "tool", "tool_call_id": "i", "content": "r"},
            ],
            max_completion_tokens=7,
            stop=["a", 3],
            seed=5,
            frequency_penalty=0.5,
            response_format={"type": "json_schema", "json_schema": {"schema": {"type": "object"}}},
            reasoning={"effort": "xhigh"},
            tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
            tool_choice={"type": "function", "function": {"name": "f"}},
            logprobs=True,
            top_logprobs=2,
        ),
    )
    request = core.requests[0]
    request.options.ClearField("start_time")
    assert request == chat_pb2.ChatRequest(
        model="m",
        messages=[
            message_pb2.ChatMessage(role="developer", content="d"),
            message_pb2.ChatMessage(role="user", content="x"),
            message_pb2.ChatMessage(role="user", media=[options_pb2.Media(data=b"hi")]),
            message_pb2.ChatMessage(role="user", media=[options_pb2.Media(data=b"hi")]),
            message_pb2.ChatMessage(
                role="assistant", tool_calls=[message_pb2.ToolCall(id="i", name="f", arguments_json=arguments)]
            ),
            message_pb2.ChatMessage(role="tool", content="r", tool_name="f", tool_call_id="i"),
        ],
        tools=[message_pb2.Tool(type="function", name="f", parameters_json='{"type": "object"}')],
        tool_choice=message_pb2.ToolChoice(tool_name="f"),
        options=options_pb2.RequestOptions(
            options_json='{"stop":["a"],"num_predict":7,"temperature":1,"seed":5,"frequency_penalty":0.5,"top_p":1}',
            constraint=options_pb2.OutputConstraint(json_schema='{"type": "object"}'),
            truncate=True,
            thinking=options_pb2.THINKING_LEVEL_MAX,
            logprobs=True,
            top_logprobs=2,
        ),
    )


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("none", message_pb2.ToolChoice.MODE_NONE),
        ("required", message_pb2.ToolChoice.MODE_REQUIRED),
        ("auto", message_pb2.ToolChoice.MODE_AUTO),
        (3, None),
        ({"type": "x"}, None),
    ],
)
async def test_tool_choice(core, client, choice, expected):
    core.script("Chat", chat_pb2.ChatResponse(finish=FINISH))
    await asked(client, "/v1/chat/completions", chat(tool_choice=choice))
    found = core.requests[0].tool_choice
    assert (found.mode if found.WhichOneof("choice") else None) == expected


def user(content):
    return [{"role": "user", "content": content}]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"messages": user(None)}, "invalid message content type: \\u003cnil\\u003e"),
        ({"messages": user(3)}, "invalid message content type: float64"),
        ({"messages": user({})}, "invalid message content type: map[string]interface {}"),
        ({"messages": user(["a"])}, "invalid message format"),
        ({"messages": user([{"type": "file"}])}, "invalid message format"),
        ({"messages": user([{"type": "image_url", "image_url": "data:image/gif;base64,aGk="}])}, "invalid image input"),
        ({"messages": user([{"type": "input_audio"}])}, "invalid input_audio format"),
        ({"messages": [{"role": "a", "tool_calls": [{"function": {"arguments": ""}}]}]}, "invalid tool call arguments"),
        ({"reasoning_effort": "zz"}, 'invalid reasoning value: \\"zz\\" (must be'),
    ],
)
async def test_refusals(core, client, body, text):
    status, kind, answered = await asked(client, "/v1/chat/completions", chat(**body))
    assert (status, kind) == (400, "application/json; charset=utf-8")
    assert answered.startswith('{"error":{"message":"' + text)
    assert core.requests == []


@pytest.mark.parametrize("path", ["chat/completions", "completions", "embeddings", "responses", "messages"])
@pytest.mark.parametrize("model", ["a:cloud", " A:CLOUD ", "m:20b-cloud"])
async def test_models_of_a_cloud_are_refused_in_the_native_shape(client, path, model):
    assert await asked(client, f"/v1/{path}", {"model": model, "nothing": "else fits"}) == (
        403,
        "application/json; charset=utf-8",
        '{"error":"ollama cloud is disabled: remote model is unavailable"}',
    )


async def test_completions(core, client):
    core.script("Generate", generate_pb2.GenerateResponse(text="a", thinking="t", finish=FINISH))
    core.script(
        "StreamGenerate",
        generate_pb2.StreamGenerateResponse(deltas=[generate_pb2.GenerateDelta(text="a")]),
        generate_pb2.StreamGenerateResponse(done=generate_pb2.GenerateDone(finish=FINISH)),
    )
    head = '"id":"cmpl-N","object":"text_completion","created":N,'
    model = '"model":"m","system_fingerprint":"fp_ollama",'
    assert await asked(client, "/v1/completions", {"model": "m", "prompt": "p"}) == (
        200,
        "application/json",
        f'{{{head}{model}"choices":[{{"text":"a","index":0,"finish_reason":"stop"}}],{USAGE}}}\n',
    )
    zeros = '"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}'
    body = {"model": "m", "prompt": "p", "stream": True, "stream_options": {"include_usage": True}}
    assert (await asked(client, "/v1/completions", body))[2] == (
        f'data: {{{head}"choices":[{{"text":"a","index":0,"finish_reason":null}}],{model}{zeros}}}\n\n'
        f'data: {{{head}"choices":[{{"text":"","index":0,"finish_reason":"stop"}}],{model}{zeros}}}\n\n'
        f'data: {{{head}"choices":[],{model}{USAGE}}}\n\n'
        "data: [DONE]\n\n"
    )
    options = json.loads(core.requests[0].options.options_json)
    assert options == {"temperature": 1, "top_p": 1, "frequency_penalty": 0, "presence_penalty": 0}


async def test_models(core, client):
    core.script("ListModels", models_pb2.ListModelsResponse())
    core.script("GetModel", models_pb2.GetModelResponse(model=models_pb2.Model(name="m:latest")))
    async with client.get("/v1/models") as response:
        assert await response.text() == '{"object":"list","data":null}\n'
    core.script("ListModels", models_pb2.ListModelsResponse(models=[models_pb2.Model(name="me/m:1")]))
    async with client.get("/v1/models") as response:
        entry = '{"id":"me/m:1","object":"model","created":0,"owned_by":"me"}'
        assert await response.text() == f'{{"object":"list","data":[{entry}]}}\n'
    async with client.get("/v1/models/m") as response:
        assert await response.text() == '{"id":"m","object":"model","created":0,"owned_by":"library"}\n'
    async with client.get("/v1/models/m:cloud") as response:
        assert response.status == 403


async def test_bodies_packed_with_zstd(core, client):
    core.script("Chat", chat_pb2.ChatResponse(message=message_pb2.ChatMessage(role="assistant"), finish=FINISH))
    packed = {"Content-Encoding": "zstd"}
    body = zstd.compress(json.dumps(chat()).encode())
    async with client.post("/v1/chat/completions", data=body, headers=packed) as response:
        assert response.status == 200
    async with client.post("/v1/chat/completions", data=body[:-1], headers=packed) as response:
        assert (response.status, await response.text()) == (400, '{"error":"unexpected EOF"}')
    async with client.post("/v1/chat/completions", data=body) as response:
        assert response.status == 400
