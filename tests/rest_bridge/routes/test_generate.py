import io
import json
import re

import aiohttp
import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from puna_client.v1 import chat_pb2, generate_pb2, message_pb2, options_pb2, usage_pb2

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d*[1-9])?Z"
FINISH = usage_pb2.Finish(
    reason=usage_pb2.FINISH_REASON_STOP,
    usage=usage_pb2.Usage(prompt_tokens=3, output_tokens=2),
    timings=usage_pb2.Timings(total=Duration(seconds=1, nanos=5), load=Duration(nanos=7)),
)
METRICS = '"total_duration":1000000005,"load_duration":7,"prompt_eval_count":3,"eval_count":2'


def scrubbed(text: str) -> str:
    return re.sub(f'"created_at":"{TIME}"', '"created_at":"T"', text)


async def asked(client: aiohttp.ClientSession, path: str, body: object) -> tuple[int, str, str]:
    data = body if isinstance(body, bytes) else json.dumps(body)
    async with client.post(path, data=data) as response:
        return response.status, response.headers.get("Content-Type", ""), scrubbed(await response.text())


async def test_a_stream_has_one_line_for_each_delta(core, client):
    core.script(
        "StreamGenerate",
        generate_pb2.StreamGenerateResponse(progress=usage_pb2.Progress(queued=usage_pb2.Progress.Queued(position=1))),
        generate_pb2.StreamGenerateResponse(
            deltas=[
                generate_pb2.GenerateDelta(thinking="hm"),
                generate_pb2.GenerateDelta(text="<b>\u2028"),
                generate_pb2.GenerateDelta(
                    text="x",
                    logprobs=[usage_pb2.TokenLogprob(text="x", logprob=-0.5, top=[usage_pb2.TokenLogprob(text="")])],
                ),
            ]
        ),
        generate_pb2.StreamGenerateResponse(
            done=generate_pb2.GenerateDone(finish=FINISH, context=usage_pb2.TokenIds(ids=[1, 2]))
        ),
    )
    status, kind, text = await asked(client, "/api/generate", {"model": "M", "prompt": "p"})
    assert (status, kind) == (200, "application/x-ndjson")
    assert text == (
        '{"model":"M","created_at":"T","response":"","thinking":"hm","done":false}\n'
        '{"model":"M","created_at":"T","response":"\\u003cb\\u003e\\u2028","done":false}\n'
        '{"model":"M","created_at":"T","response":"x","done":false,"logprobs":[{"token":"x","logprob":-0.5,'
        '"bytes":[120],"top_logprobs":[{"token":"","logprob":0}]}]}\n'
        f'{{"model":"M","created_at":"T","response":"","done":true,"done_reason":"stop","context":[1,2],{METRICS}}}\n'
    )


async def test_everything_a_body_says_reaches_the_core(core, client):
    core.script("Generate", generate_pb2.GenerateResponse(finish=FINISH))
    body = {
        "model": "m",
        "prompt": "p",
        "suffix": "s",
        "system": "sys",
        "template": "t",
        "context": [],
        "stream": False,
        "raw": True,
        "format": {"b": 1.0, "a": [1, 2]},
        "keep_alive": "1h",
        "images": ["aGk="],
        "options": {"num_ctx": 8, "stop": ["a"]},
        "think": "high",
        "truncate": False,
        "shift": False,
        "_debug_render_only": True,
        "logprobs": True,
        "top_logprobs": 3,
    }
    await asked(client, "/api/generate", body)
    request = core.requests[0]
    assert request.options.start_time.seconds > 0
    request.options.ClearField("start_time")
    assert request == generate_pb2.GenerateRequest(
        model="m",
        text="p",
        suffix="s",
        system="sys",
        template="t",
        raw=True,
        media=[options_pb2.Media(data=b"hi")],
        context=usage_pb2.TokenIds(),
        render_only=True,
        options=options_pb2.RequestOptions(
            options_json='{"num_ctx":8,"stop":["a"]}',
            truncate=False,
            shift=False,
            constraint=options_pb2.OutputConstraint(json_schema='{"b": 1.0, "a": [1, 2]}'),
            thinking=options_pb2.THINKING_LEVEL_HIGH,
            logprobs=True,
            top_logprobs=3,
            keep_alive=options_pb2.KeepAlive(duration=Duration(seconds=3600)),
        ),
    )
    assert request.HasField("context")


@pytest.mark.parametrize(
    ("body", "thinking", "keep_alive", "constraint"),
    [
        ("{}", options_pb2.THINKING_LEVEL_UNSPECIFIED, None, None),
        ('{"think":false,"keep_alive":-1,"format":"json"}', options_pb2.THINKING_LEVEL_OFF, "forever", "json_object"),
        ('{"think":true,"keep_alive":0,"format":""}', options_pb2.THINKING_LEVEL_ON, "duration", None),
        (
            '{"think":null,"keep_alive":"-1","format":"xml"}',
            options_pb2.THINKING_LEVEL_UNSPECIFIED,
            "forever",
            "json_schema",
        ),
    ],
)
async def test_thinking_keep_alive_and_format_in_their_forms(core, client, body, thinking, keep_alive, constraint):
    core.script("Generate", generate_pb2.GenerateResponse(finish=FINISH))
    await asked(
        client, "/api/generate", body[:-1].encode() + (b',"stream":false}' if len(body) > 2 else b'"stream":false}')
    )
    options = core.requests[0].options
    assert options.thinking == thinking
    assert options.truncate
    assert options.keep_alive.WhichOneof("kind") == keep_alive
    assert options.constraint.WhichOneof("kind") == constraint


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("reason", "word"), [("FINISH_REASON_LOADED", "load"), ("FINISH_REASON_UNLOADED", "unload")])
async def test_loading_is_one_object_even_in_a_stream(core, client, stream, reason, word):
    finish = usage_pb2.Finish(reason=getattr(usage_pb2, reason))
    core.script("Generate", generate_pb2.GenerateResponse(finish=finish))
    done = generate_pb2.StreamGenerateResponse(done=generate_pb2.GenerateDone(finish=finish))
    core.script("StreamGenerate", generate_pb2.StreamGenerateResponse(), done)
    answer = await asked(client, "/api/generate", {"model": "m", "stream": stream})
    text = f'{{"model":"m","created_at":"T","response":"","done":true,"done_reason":"{word}"}}'
    assert answer == (200, "application/json; charset=utf-8", text)


async def test_a_rendered_prompt_is_one_object_even_in_a_stream(core, client):
    rendered = usage_pb2.RenderedPrompt(text="<s>", image_count=2)
    core.script("StreamChat", chat_pb2.StreamChatResponse(done=chat_pb2.ChatDone(rendered=rendered)))
    answer = await asked(client, "/api/chat", {"model": "m", "_debug_render_only": True})
    text = (
        '{"model":"m","created_at":"T","message":{"role":"","content":""},"done":false,'
        '"_debug_info":{"rendered_template":"\\u003cs\\u003e","image_count":2}}'
    )
    assert answer == (200, "application/json; charset=utf-8", text)


async def test_a_chat_in_one_piece(core, client):
    call = message_pb2.ToolCall(id="call_1", index=1, name="f", arguments_json='{"z": 1.0, "a": {"y": 1e21, "b": "<"}}')
    message = message_pb2.ChatMessage(role="assistant", content="c", thinking="t", tool_calls=[call])
    core.script("Chat", chat_pb2.ChatResponse(message=message, finish=FINISH))
    body = {
        "model": "m",
        "stream": False,
        "messages": [
            {"role": "USER", "content": "x", "images": ["aGk="]},
            {
                "role": "assistant",
                "tool_calls": [{"id": "i", "function": {"name": "f", "arguments": {"b": 1, "a": 2}}}],
            },
            {"role": "tool", "tool_name": "n", "tool_call_id": "i", "content": "r", "thinking": "t"},
        ],
        "tools": [
            {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
        ],
    }
    status, kind, text = await asked(client, "/api/chat", body)
    assert (status, kind) == (200, "application/json; charset=utf-8")
    assert text == (
        '{"model":"m","created_at":"T","message":{"role":"assistant","content":"c","thinking":"t","tool_calls":'
        '[{"id":"call_1","function":{"index":1,"name":"f","arguments":{"z":1,"a":{"b":"\\u003c","y":1e+21}}}}]},'
        f'"done":true,"done_reason":"stop",{METRICS}}}'
    )
    request = core.requests[0]
    assert list(request.messages) == [
        message_pb2.ChatMessage(role="USER", content="x", media=[options_pb2.Media(data=b"hi")]),
        message_pb2.ChatMessage(
            role="assistant", tool_calls=[message_pb2.ToolCall(id="i", name="f", arguments_json='{"b": 1, "a": 2}')]
        ),
        message_pb2.ChatMessage(role="tool", tool_name="n", tool_call_id="i", content="r", thinking="t"),
    ]
    assert list(request.tools) == [
        message_pb2.Tool(type="function", name="f", description="d", parameters_json='{"type": "object"}')
    ]


async def test_calls_in_a_stream(core, client):
    call = message_pb2.ToolCall(name="f")
    core.script(
        "StreamChat",
        chat_pb2.StreamChatResponse(deltas=[chat_pb2.ChatDelta(content="a")]),
        chat_pb2.StreamChatResponse(
            deltas=[chat_pb2.ChatDelta(tool_calls=[call])], done=chat_pb2.ChatDone(finish=FINISH)
        ),
    )
    _, _, text = await asked(client, "/api/chat", {"model": "m"})
    assert text == (
        '{"model":"m","created_at":"T","message":{"role":"assistant","content":"a"},"done":false}\n'
        '{"model":"m","created_at":"T","message":{"role":"assistant","content":"","tool_calls":'
        '[{"function":{"index":0,"name":"f","arguments":{}}}]},"done":false}\n'
        '{"model":"m","created_at":"T","message":{"role":"assistant","content":""},'
        f'"done":true,"done_reason":"stop",{METRICS}}}\n'
    )


ERRORS = [
    (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", 404, "; charset=utf-8"),
    (grpc.StatusCode.INVALID_ARGUMENT, "OPTION_TYPE", 500, "; charset=utf-8"),
    (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FORMAT", 500, ""),
    (grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_OVERFLOW", 400, ""),
    (grpc.StatusCode.FAILED_PRECONDITION, "CAPABILITY_MISSING", 400, "; charset=utf-8"),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", 503, "; charset=utf-8"),
    (grpc.StatusCode.INVALID_ARGUMENT, "SOMETHING_NEW", 400, "; charset=utf-8"),
    (grpc.StatusCode.UNAVAILABLE, "BACKEND_CRASHED", 500, ""),
]


@pytest.mark.parametrize(("code", "reason", "status", "charset"), ERRORS)
async def test_an_error_before_the_first_line_keeps_its_status(core, client, fail, code, reason, status, charset):
    core.script("StreamGenerate", fail(code, reason, "wrong: <x>"))
    core.script("Generate", fail(code, reason, "wrong: <x>"))
    text = '{"error":"wrong: \\u003cx\\u003e"}'
    assert await asked(client, "/api/generate", {}) == (status, "application/json" + charset, text)
    whole = await asked(client, "/api/generate", {"stream": False})
    assert whole == (status, "application/json; charset=utf-8", text)


async def test_an_error_after_the_first_line_is_a_line(core, client, fail):
    core.script(
        "StreamGenerate",
        generate_pb2.StreamGenerateResponse(deltas=[generate_pb2.GenerateDelta(text="a")]),
        fail(grpc.StatusCode.UNAVAILABLE, "BACKEND_CRASHED", "gone"),
    )
    status, kind, text = await asked(client, "/api/generate", {})
    assert (status, kind) == (200, "application/x-ndjson")
    assert text == '{"model":"","created_at":"T","response":"a","done":false}\n{"error":"gone"}\n'


async def test_a_long_error_text_comes_whole(core, client, fail):
    long = "é" * 20_000
    core.script("Generate", fail(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FORMAT", long))
    _, _, text = await asked(client, "/api/generate", {"stream": False})
    assert json.loads(text) == {"error": long}


@pytest.mark.parametrize(
    "first", [[], [generate_pb2.StreamGenerateResponse(deltas=[generate_pb2.GenerateDelta(text="a")])]]
)
async def test_hanging_up_cancels_the_call(core, client, wait, first):
    core.script("StreamGenerate", *first, wait())
    with pytest.raises(TimeoutError):
        async with client.post("/api/generate", data="{}", timeout=aiohttp.ClientTimeout(0.5)) as response:
            await response.read()
    await core.until_cancelled()


async def test_hanging_up_on_a_whole_answer_cancels_the_call(core, client, wait):
    core.script("Chat", wait())
    with pytest.raises(TimeoutError):
        await client.post("/api/chat", data='{"stream":false}', timeout=aiohttp.ClientTimeout(0.5))
    await core.until_cancelled()


async def test_a_large_body_and_a_large_answer_pass(core, client):
    text = "x" * 6_000_000
    core.script("Generate", generate_pb2.GenerateResponse(text=text, finish=FINISH))
    body = io.BytesIO(json.dumps({"prompt": text, "stream": False}).encode())
    async with client.post("/api/generate", data=body) as response:
        assert response.headers["Transfer-Encoding"] == "chunked"
        assert (await response.json())["response"] == text
    assert core.requests[0].text == text
