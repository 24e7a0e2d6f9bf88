"""What the reference answered to 350 requests about paths, methods, origins and hosts, header by header."""

import asyncio
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from puna.v1 import models_pb2, server_pb2

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
    core.script("GetServerInfo", server_pb2.GetServerInfoResponse(version="9", rest_version="0.33.0"))
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
