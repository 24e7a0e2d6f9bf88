"""Ollama's answers to 350 requests about paths, methods, origins and hosts, compared header by header."""

import asyncio
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.rest_bridge.conftest import Wait

from puna_client.v1 import chat_pb2, generate_pb2, models_pb2, server_pb2
from puna_rest import streams

RECORDED = json.loads((Path(__file__).parent / "wire.json").read_text())


async def exchange(url: str, line: str, headers: list[str]) -> tuple[int, list[str], str]:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = [f"{line} HTTP/1.1", *headers, "Connection: close"]
    writer.write(("\r\n".join(head) + "\r\n\r\n").encode("latin1"))
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await writer.wait_closed()
    top, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = top.decode("latin1").split("\r\n")
    kept = sorted(each for each in lines if not each.startswith(("Date:", "Connection:")))
    assert any(each.startswith("Date:") for each in lines)
    return int(status.split()[1]), kept, body.decode()


async def test_paths_methods_origins_and_hosts_as_in_the_reference(core, url):
    core.script("ListModels", models_pb2.ListModelsResponse())
    wrong = []
    for case in RECORDED:
        got = await exchange(url, case["request"], [f"Host: {case['host']}", *case["headers"]])
        if got != (case["status"], case["answer"], case["body"]):
            wrong.append((case, got))
    assert len(RECORDED) > 300
    assert wrong == []


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_version_is_the_core_s_word(core, url, method):
    core.script("GetServerInfo", server_pb2.GetServerInfoResponse(version="9", ollama_version="0.33.0"))
    status, headers, body = await exchange(url, f"{method} /api/version", ["Host: localhost"])
    assert status == 200
    assert headers == ["Content-Length: 20", "Content-Type: application/json; charset=utf-8"]
    assert body == ('{"version":"0.33.0"}' if method == "GET" else "")


async def test_what_the_bridge_did_not_foresee_is_a_500_without_the_text(core, client, caplog):
    core.script("ListModels")
    async with client.get("/api/tags") as response:
        assert response.status == 500
        assert "error" in await response.json()
    assert "Server" not in response.headers


@pytest.mark.parametrize(
    ("path", "body", "method", "end"),
    [
        ("/api/generate", {"model": "m", "prompt": "a"}, "StreamGenerate", b'{"error":"internal error'),
        ("/api/chat", {"model": "m", "messages": [{"role": "user", "content": "a"}]}, "StreamChat", b'{"error":"int'),
        (
            "/v1/chat/completions",
            {"model": "m", "stream": True, "messages": [{"role": "user", "content": "a"}]},
            "StreamChat",
            b'data: {"error":{"message":"internal error',
        ),
    ],
)
async def test_a_stream_that_the_bridge_cannot_go_on_with_ends_with_an_error(
    core, client, monkeypatch, path, body, method, end
):
    native = method == "StreamGenerate"
    delta = generate_pb2.GenerateDelta(text="a") if native else chat_pb2.ChatDelta(content="a")
    kind = generate_pb2.StreamGenerateResponse if native else chat_pb2.StreamChatResponse
    core.script(method, kind(deltas=[delta]), Wait())
    relayed = streams.relay

    async def failing(request, call, headers, write, *rest, **more):
        async def broken():
            async for message in call:
                yield message
                raise ValueError("a text that quotes the prompt")

        class Call:
            def __aiter__(self):
                return broken()

            def cancel(self):
                return call.cancel()

        return await relayed(request, Call(), headers, write, *rest, **more)

    monkeypatch.setattr(streams, "relay", failing)
    async with client.post(path, json=body) as response:
        lines = [line async for line in response.content if line.strip()]
    assert response.status == 200
    assert lines[-1].startswith(end)
    assert b"quotes" not in b"".join(lines)
    await core.until_cancelled()
