"""Answers that CancelRequests ended: an error on every route, since Ollama's API has no such end."""

import json

import aiohttp
import pytest

from puna_client.v1 import chat_pb2, generate_pb2, message_pb2, usage_pb2

TEXT = "the request was cancelled through CancelRequests"
FINISH = usage_pb2.Finish(reason=usage_pb2.FINISH_REASON_CANCELLED, usage=usage_pb2.Usage(output_tokens=1))
CALL = message_pb2.ToolCall(id="c", name="f", arguments_json="{}")
MESSAGES = [{"role": "user", "content": "a"}]
ROUTES = [
    ("/api/generate", {"prompt": "a"}),
    ("/api/chat", {"messages": MESSAGES}),
    ("/v1/completions", {"prompt": "a"}),
    ("/v1/chat/completions", {"messages": MESSAGES}),
    ("/v1/messages", {"messages": MESSAGES, "max_tokens": 9}),
    ("/v1/responses", {"input": "a"}),
]


@pytest.mark.parametrize(("path", "body"), ROUTES, ids=[path for path, _ in ROUTES])
async def test_a_cancelled_answer_is_an_error(core, client, path, body):
    said = message_pb2.ChatMessage(content="Hel", tool_calls=[CALL])
    core.script("Chat", chat_pb2.ChatResponse(message=said, finish=FINISH))
    core.script("Generate", generate_pb2.GenerateResponse(text="Hel", finish=FINISH))
    async with client.post(path, json={"model": "m", "stream": False, **body}) as response:
        assert response.status == 499
        assert TEXT in await response.text()
    deltas = [chat_pb2.ChatDelta(content="Hel"), chat_pb2.ChatDelta(tool_calls=[CALL])]
    done = chat_pb2.ChatDone(finish=FINISH)
    core.script("StreamChat", *(chat_pb2.StreamChatResponse(deltas=deltas), chat_pb2.StreamChatResponse(done=done)))
    core.script(
        "StreamGenerate",
        generate_pb2.StreamGenerateResponse(deltas=[generate_pb2.GenerateDelta(text="Hel")]),
        generate_pb2.StreamGenerateResponse(done=generate_pb2.GenerateDone(finish=FINISH)),
    )
    async with client.post(path, json={"model": "m", "stream": True, **body}) as response:
        assert response.status == 200
        lines = [line for line in (await response.text()).splitlines() if line]
    assert "Hel" in "".join(lines)
    assert TEXT in json.dumps(json.loads(lines[-1].removeprefix("data: ")))


async def test_a_cancelled_transcription_is_an_error(core, client):
    core.script("Chat", chat_pb2.ChatResponse(message=message_pb2.ChatMessage(content="Hel"), finish=FINISH))
    form = aiohttp.FormData({"model": "m"})
    form.add_field("file", b"RIFF", filename="a.wav")
    async with client.post("/v1/audio/transcriptions", data=form) as response:
        assert response.status == 499
