import json

import pytest

from puna_client.v1 import chat_pb2, generate_pb2, message_pb2, usage_pb2

SAID = message_pb2.ChatMessage(role="assistant", content="a")
CHAT = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}
BODIES = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"model": "m", "prompt": "x"},
    "/v1/responses": {"model": "m", "input": "x"},
    "/v1/messages": CHAT,
}
HEADERS = [{"Authorization": "Bearer x"}, {"anthropic-version": "2023-06-01"}, {"x-api-key": "x"}]


def script(core, usage):
    finish = usage_pb2.Finish(reason=usage_pb2.FINISH_REASON_STOP, usage=usage)
    core.script("Chat", chat_pb2.ChatResponse(message=SAID, finish=finish))
    core.script("Generate", generate_pb2.GenerateResponse(text="a", finish=finish))
    core.script(
        "StreamChat",
        chat_pb2.StreamChatResponse(deltas=[chat_pb2.ChatDelta(content="a")]),
        chat_pb2.StreamChatResponse(done=chat_pb2.ChatDone(finish=finish)),
    )
    core.script(
        "StreamGenerate",
        generate_pb2.StreamGenerateResponse(deltas=[generate_pb2.GenerateDelta(text="a")]),
        generate_pb2.StreamGenerateResponse(done=generate_pb2.GenerateDone(finish=finish)),
    )


async def counts(client, path, stream, headers):
    """Ask; return the last usage that the answer has."""
    body = BODIES[path] | {"stream": stream}
    if path.endswith("completions"):
        body |= {"stream_options": {"include_usage": True}}
    async with client.post(path, data=json.dumps(body), headers=headers) as response:
        assert response.status == 200
        text = await response.text()
    if not stream:
        return json.loads(text)["usage"]
    events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
    found = [event.get("usage") or event.get("response", {}).get("usage") for event in map(json.loads, events)]
    return [usage for usage in found if usage][-1]


def expected(path, prompt, cached, thought=0):
    if path == "/v1/messages":
        return {"input_tokens": prompt - cached, "cache_read_input_tokens": cached, "output_tokens": 5}
    if path == "/v1/responses":
        return {
            "input_tokens": prompt,
            "output_tokens": 5,
            "total_tokens": prompt + 5,
            "input_tokens_details": {"cached_tokens": cached},
            "output_tokens_details": {"reasoning_tokens": thought},
        }
    details = {"completion_tokens_details": {"reasoning_tokens": thought}} if thought else {}
    return {
        "prompt_tokens": prompt,
        "completion_tokens": 5,
        "total_tokens": prompt + 5,
        "prompt_tokens_details": {"cached_tokens": cached},
    } | details


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("headers", HEADERS, ids=lambda headers: next(iter(headers)))
async def test_clients_with_a_key_or_a_version_see_the_count(core, client, path, stream, headers):
    script(core, usage_pb2.Usage(prompt_tokens=9, cached_prompt_tokens=7, output_tokens=5, thinking_tokens=2))
    assert await counts(client, path, stream, headers) == expected(path, 9, 7, 2)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", BODIES)
async def test_other_clients_see_the_count_of_a_long_prompt_alone(core, client, path, stream):
    script(core, usage_pb2.Usage(prompt_tokens=1024, cached_prompt_tokens=7, output_tokens=5))
    assert await counts(client, path, stream, {}) == expected(path, 1024, 7)
    script(core, usage_pb2.Usage(prompt_tokens=1023, cached_prompt_tokens=7, output_tokens=5))
    found = await counts(client, path, stream, {})
    assert found.get("prompt_tokens", found.get("input_tokens")) == 1023
    assert "cache_read_input_tokens" not in found
    assert "prompt_tokens_details" not in found
    assert found.get("input_tokens_details", {"cached_tokens": 0}) == {"cached_tokens": 0}


async def test_nothing_cached_is_not_mentioned(core, client):
    script(core, usage_pb2.Usage(prompt_tokens=9, output_tokens=5))
    assert await counts(client, "/v1/messages", False, HEADERS[1]) == {"input_tokens": 9, "output_tokens": 5}
    found = await counts(client, "/v1/chat/completions", False, HEADERS[0])
    assert found == {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
