"""Clients that hang up at any moment leave no word in the log but that of their requests, and no work behind."""

import contextlib
import json
import signal
import socket
import struct
import time
import urllib.parse

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.e2e.server import wait_until

from puna_client.v1 import (
    chat_pb2,
    chat_pb2_grpc,
    embed_pb2,
    embed_pb2_grpc,
    generate_pb2,
    generate_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    server_pb2,
    server_pb2_grpc,
)

SLOW = " ".join(f"w{number} @wait .02" for number in range(200))
BEFORE = "@wait 2 late"
MOMENTS = (0.0, 0.01, 0.1)
"""Seconds after which a client leaves: before its request is read, while it is worked on, while it is answered."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DIGEST = "sha256:" + 64 * "0"


@contextlib.contextmanager
def connected(server, *, reset):
    """Open a connection to the bridge, and leave with or without a word."""
    where = urllib.parse.urlsplit(server.url)
    with socket.create_connection((where.hostname, where.port), timeout=20) as connection:
        yield connection
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def http(method, path, body=None, *, declared=None, chunked=False):
    """Write a request; `declared` is a length that the body does not have."""
    data = json.dumps(body).encode() if body is not None else b""
    length = len(data) if declared is None else declared
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {length}"
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n".encode() + data


def asked(prompt, **more):
    return {"model": "scripted", "prompt": prompt, "raw": True} | more


def said(text, **more):
    return {"model": "scripted", "messages": [{"role": "user", "content": text}]} | more


REQUESTS = {
    "nothing": b"",
    "half a line": b"GET /api/ver",
    "half of the headers": b"POST /api/generate HTTP/1.1\r\nHost: loc",
    "no body": http("POST", "/api/generate", declared=100),
    "half a body": http("POST", "/api/generate", {"model": "scripted"}, declared=500),
    "half a chunk": http("POST", "/api/chat", chunked=True) + b"400\r\n{",
    "no last chunk": http("POST", "/api/embed", chunked=True) + b"1\r\n{\r\n",
    "a bad chunk": http("POST", "/api/embed", chunked=True) + b"zz\r\n",
    "not HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "half an upload": http("POST", f"/api/blobs/{DIGEST}", declared=1 << 20) + bytes(5000),
    "half a chunked upload": http("POST", f"/api/blobs/{DIGEST}", chunked=True) + b"100\r\n" + bytes(100),
    "an upload after 100-continue": http("POST", f"/api/blobs/{DIGEST}", declared=9).replace(
        b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"
    ),
    "tags": http("GET", "/api/tags"),
    "show": http("POST", "/api/show", {"model": "scripted", "verbose": True}),
    "generate": http("POST", "/api/generate", asked(SLOW)),
    "generate without a stream": http("POST", "/api/generate", asked(SLOW, stream=False)),
    "generate before its first word": http("POST", "/api/generate", asked(BEFORE)),
    "generate while it crashes": http("POST", "/api/generate", asked("a @wait .05 @raise")),
    "load": http("POST", "/api/generate", {"model": "scripted", "options": {"num_ctx": 512}}),
    "unload": http("POST", "/api/generate", {"model": "scripted", "keep_alive": 0}),
    "chat": http("POST", "/api/chat", said(SLOW)),
    "chat without a stream": http("POST", "/api/chat", said(SLOW, stream=False)),
    "embed": http("POST", "/api/embed", {"model": "scripted", "input": ["a"] * 500}),
    "create": http("POST", "/api/create", {"model": "made", "from": "scripted", "system": "hello"}),
    "pull": http("POST", "/api/pull", {"model": "127.0.0.1:9/x/y", "insecure": True}),
    "openai": http("POST", "/v1/chat/completions", said(SLOW, stream=True)),
    "openai without a stream": http("POST", "/v1/chat/completions", said(SLOW)),
    "openai embeddings": http("POST", "/v1/embeddings", {"model": "scripted", "input": ["a"] * 500}),
    "responses": http("POST", "/v1/responses", {"model": "scripted", "input": SLOW, "stream": True}),
    "messages": http("POST", "/v1/messages", said(SLOW, stream=True, max_tokens=99)),
    "several at once": 3 * http("GET", "/api/tags") + http("POST", "/api/generate", asked(SLOW)),
    "gRPC": PREFACE,
}
QUIET = ("failed: oh dear", "the backend failed: ValueError", "a request could not be read: BadHttpMessage")
"""Texts that requests of ours are logged with, whether their clients are there or not."""


def unworried(server):
    """End a server in order; it must have had nothing to log but what requests failed with."""
    with grpc.insecure_channel(server.grpc) as channel:
        stub = server_pb2_grpc.ServerServiceStub(channel)
        wait_until(lambda: not stub.ListRequests(server_pb2.ListRequestsRequest(), timeout=10).requests, 10)
    server.signal(signal.SIGTERM)
    status, lines = server.ended()
    assert [line for line in lines if not any(each in line for each in QUIET)] == []
    assert status == 0


@pytest.mark.parametrize("apart", [False, True])
def test_over_rest(start, apart):
    """With the core beside the bridge, and behind a channel."""
    server = start("serve").ready()
    core = server
    if apart:
        server = start("rest", "--core", core.grpc).ready()
        server.grpc = core.grpc
    for name, request in REQUESTS.items():
        for index, moment in enumerate(MOMENTS):
            with connected(server, reset=index % 2 == 0) as connection, contextlib.suppress(ConnectionError):
                connection.sendall(request)
                if moment and index == 1:
                    connection.shutdown(socket.SHUT_WR)
                time.sleep(moment)
        with connected(server, reset=True) as connection:
            connection.sendall(http("GET", "/api/version"))
            assert connection.recv(12) == b"HTTP/1.1 200", name
    unworried(server)
    if apart:
        unworried(core)


def uploading():
    yield models_pb2.UploadBlobRequest(config={"digest": DIGEST})
    for _ in range(200):
        yield models_pb2.UploadBlobRequest(chunk=bytes(1000))
        time.sleep(0.01)


def message(content):
    return chat_pb2.ChatRequest(model="scripted", messages=[{"role": "user", "content": content}])


def calls(channel):
    """Begin a call of each kind; those of one answer are futures."""
    generate, chat = generate_pb2_grpc.GenerateServiceStub(channel), chat_pb2_grpc.ChatServiceStub(channel)
    models = models_pb2_grpc.ModelsServiceStub(channel)
    health = health_pb2_grpc.HealthStub(channel)
    for prompt in (SLOW, BEFORE, "a @wait .05 @raise"):
        asking = generate_pb2.GenerateRequest(model="scripted", text=prompt, raw=True)
        yield lambda asking=asking: generate.StreamGenerate(asking, timeout=20)
        yield lambda asking=asking: generate.Generate.future(asking, timeout=20)
    yield lambda: chat.StreamChat(message(SLOW), timeout=20)
    yield lambda: chat.Chat.future(message(SLOW), timeout=20)
    embed = embed_pb2_grpc.EmbedServiceStub(channel)
    inputs = ["a"] * 500
    yield lambda: embed.Embed.future(embed_pb2.EmbedRequest(model="scripted", inputs=inputs), timeout=20)
    yield lambda: models.UploadBlob.future(uploading(), timeout=20)
    yield lambda: models.PullModel(models_pb2.PullModelRequest(name="127.0.0.1:9/x/y", insecure=True), timeout=20)
    yield lambda: models.CreateModel(models_pb2.CreateModelRequest(name="made", from_model="scripted"), timeout=20)
    yield lambda: models.CheckStore(models_pb2.CheckStoreRequest(), timeout=20)
    yield lambda: models.ListModels.future(models_pb2.ListModelsRequest(), timeout=20)
    yield lambda: models.LoadModel.future(models_pb2.LoadModelRequest(name="scripted"), timeout=20)
    yield lambda: health.Watch(health_pb2.HealthCheckRequest(), timeout=20)
    watch = server_pb2_grpc.ServerServiceStub(channel).WatchLoad
    yield lambda: watch(server_pb2.WatchLoadRequest(), timeout=20)


def test_over_grpc(start):
    """Every other client cancels its call, the others close their channel."""
    server = start("core").ready()
    count = sum(1 for _ in calls(grpc.insecure_channel(server.grpc)))
    for number in range(count):
        for index, moment in enumerate(MOMENTS):
            with grpc.insecure_channel(server.grpc, options=(("grpc.use_local_subchannel_pool", 1),)) as channel:
                grpc.channel_ready_future(channel).result(10)
                call = list(calls(channel))[number]()
                time.sleep(moment)
                if (number + index) % 2:
                    call.cancel()
    unworried(server)


def test_over_grpc_with_connections_that_are_reset(start):
    server = start("core").ready()
    host, _, port = server.grpc.rpartition(":")
    settings = b"\0\0\0\4\0\0\0\0\0"
    for sent in (
        b"",
        PREFACE[:9],
        PREFACE,
        PREFACE + settings,
        PREFACE + settings[:5],
        PREFACE + b"\xff" * 40,
        b"GET /",
    ):
        for reset in (True, False):
            with socket.create_connection((host, int(port)), timeout=20) as connection:
                connection.sendall(sent)
                if reset:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    unworried(server)
