"""The traces of a server with an upstream: from a client through either face to the collector and to the upstream."""

import asyncio
import json
import urllib.request

import grpc.aio
import pytest
from tests.core.tracing.collector import collecting
from tests.e2e.server import serving
from tests.plugins.openai.front import serving as serving_front

from puna_client.v1 import chat_pb2, chat_pb2_grpc, message_pb2

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADERS = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "congo=t61rcWkgMzE", "x-request-id": "client-1"}
SECRET = "the secret of the prompt"
HELLO = {"messages": [{"role": "user", "content": SECRET}]}


@pytest.fixture
async def server(tmp_path):
    """A server that exports its traces, its collector, and the upstream of its model "remote"."""
    async with collecting() as (collector, url), serving_front() as front:
        config = tmp_path / "config.toml"
        config.write_text(f'[backends.openai.upstreams.front]\nbase_url = "{front.url}"\nretries = 0\n')
        (tmp_path / "puna").mkdir()
        config.rename(tmp_path / "puna" / "config.toml")
        settings = {
            "PUNA_TRACES": "1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
            "OTEL_SERVICE_NAME": "the server",
            "OTEL_BSP_SCHEDULE_DELAY": "20",
            "PUNA_LOG_FORMAT": "json",
            "XDG_CONFIG_HOME": str(tmp_path),
        }
        # The server is started and stopped in a thread, since the collector and the upstream use this loop.
        context = serving(tmp_path / "models", **settings)
        running = await asyncio.to_thread(context.__enter__)
        try:
            body = {"model": "remote", "backend": "openai", "upstream": "front/hello", "stream": False}
            await asyncio.to_thread(running.json, "/api/create", body)
            yield running, collector, front
        finally:
            await asyncio.to_thread(context.__exit__, None, None, None)


def post(url, body, headers):
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


async def test_a_trace_goes_through_both_faces_to_the_upstream(server):
    running, collector, front = server
    await asyncio.to_thread(post, f"{running.url}/api/chat", {"model": "remote", "stream": False} | HELLO, HEADERS)
    by_rest = await collector.request("client-1")
    sent = tuple((HEADERS | {"x-request-id": "client-2"}).items())
    messages = [message_pb2.ChatMessage(role="user", content=SECRET)]
    async with grpc.aio.insecure_channel(running.grpc) as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        await stub.Chat(chat_pb2.ChatRequest(model="remote", messages=messages), metadata=sent, timeout=60)
    by_grpc = await collector.request("client-2")
    # The upstream is also asked for its models.
    asked = [each[1] for each in front.requests if each[1].get("x-request-id", "").startswith("client-")]
    for span, headers in zip((by_rest, by_grpc), asked, strict=True):
        assert (span.trace, span.parent, span.state) == (TRACE, SPAN, HEADERS["tracestate"])
        assert (span.name, span.kind) == ("chat remote", 2)
        assert span.attributes["gen_ai.usage.input_tokens"] == 11
        assert span.resource["service.name"] == "the server"
        _, trace, parent, flags = headers["traceparent"].split("-")
        assert (trace, parent, int(flags, 16) & 1) == (TRACE, span.id, 1)
        assert headers["tracestate"] == HEADERS["tracestate"]
    stages = [each.name for each in collector.children(by_rest)]
    assert stages == ["load", "prefill", "decode"]
    lines = [json.loads(line) for line in running.log().splitlines() if '"outcome"' in line]
    assert [(each["trace_id"], each["span_id"]) for each in lines if each["method"] != "CreateModel"] == [
        (TRACE, by_rest.id),
        (TRACE, by_grpc.id),
    ]
    assert SECRET.encode() not in collector.raw
    assert SECRET not in running.log()
