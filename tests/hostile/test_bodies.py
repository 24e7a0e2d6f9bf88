"""Bodies and messages: none may take much more memory than its limit, however it is sent."""

import gzip
import hashlib
import json
import select
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import grpc
import pytest
from tests.e2e.server import MODELS, serving
from tests.hostile.bounds import unharmed
from tests.hostile.wire import connect, exchange, head, open_calls, status, until_closed

from puna_client.v1 import (
    chat_pb2,
    chat_pb2_grpc,
    message_pb2,
    models_pb2,
    models_pb2_grpc,
    server_pb2,
    server_pb2_grpc,
)
from puna_rest.zstd import zstd

MB = 1 << 20
LARGE = ("/api/generate", "/api/chat", "/api/embed", "/api/create", "/v1/chat/completions", "/v1/completions",
         "/v1/embeddings", "/v1/responses", "/v1/messages", "/v1/audio/transcriptions")  # fmt: skip
SMALL = ("/api/show", "/api/pull", "/api/push", "/api/copy", "/api/experimental/web_search")
FORM = ("Content-Type: multipart/form-data; boundary=x",)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(
        tmp_path_factory.mktemp("home") / "models",
        PUNA_MAX_REQUEST_BYTES=str(8 * MB),
        PUNA_MAX_BODIES_BYTES=str(32 * MB),
        PUNA_MAX_UPLOAD_BYTES=str(16 * MB),
        PUNA_BODY_TIMEOUT="1",
    ) as running:
        running.upload("scripted", MODELS / "scripted.gguf")
        running.upload("embedder", MODELS / "embedder.gguf")
        yield running


def flood(server, route, piece=b" " * MB, *headers, most=400, reads=True):
    """Send a chunked body without an end; return the answer and the bytes that the server took.

    A client that `reads` stops when there is an answer.
    """
    taken = 0
    chunk = b"%x\r\n%s\r\n" % (len(piece), piece)
    with connect(server.url) as sock:
        sock.sendall(head(f"{route} HTTP/1.1", "Transfer-Encoding: chunked", *headers))
        with suppress(ConnectionError, TimeoutError):
            for _ in range(most):
                if reads and select.select([sock], [], [], 0)[0]:
                    break
                sock.sendall(chunk)
                taken += len(piece)
        return until_closed(sock) if reads else b"", taken


@pytest.mark.parametrize("route", ["/api/generate", "/api/show", "/v1/responses", "/v1/audio/transcriptions"])
def test_an_endless_body(server, route):
    with unharmed(server, memory=128 * MB):
        answer, taken = flood(server, f"POST {route}", b" " * MB, *(FORM if "audio" in route else ()))
    assert status(answer) == 413
    assert taken < 100 * MB


def test_an_endless_body_from_a_client_that_does_not_read(server):
    with unharmed(server, memory=128 * MB):
        _, taken = flood(server, "POST /api/chat", reads=False)
    assert taken < 200 * MB


def test_a_body_that_says_how_long_it_is(server):
    def one(route):
        request = head(f"POST {route} HTTP/1.1", "Content-Length: 99999999999", "Connection: close", *FORM)
        return exchange(server.url, request)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(one, LARGE + SMALL))
    assert [status(each) for each in answers] == [413] * len(answers)
    assert all(b"larger than" in each and b"PUNA_MAX_" in each for each in answers)


def test_a_client_that_asks_before_it_sends(server):
    answer = exchange(server.url, head("POST /api/chat HTTP/1.1", "Content-Length: 99999999", "Expect: 100-continue"))
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_delete_and_a_get_with_endless_bodies(server):
    with unharmed(server, memory=128 * MB):
        for line in ("DELETE /api/delete", "GET /api/tags", "GET /nothing", "POST /v1/models", "PUT /"):
            flood(server, line, reads=False, most=40)


def test_a_body_of_the_longest_length_is_served(server):
    body = json.dumps({"model": "scripted", "prompt": "a", "stream": False}).encode()
    body += b" " * (8 * MB - len(body))
    answer = exchange(server.url, head("POST /api/generate HTTP/1.1", f"Content-Length: {len(body)}",
                                       "Connection: close") + body)  # fmt: skip
    assert status(answer) == 200
    answer = exchange(server.url, head("POST /api/generate HTTP/1.1", f"Content-Length: {len(body) + 1}",
                                       "Connection: close") + body + b" ")  # fmt: skip
    assert status(answer) == 413


@pytest.mark.parametrize("tiny", [b"1\r\n \r\n" * 40_000, b"1;" + b"e" * 200_000 + b"\r\n \r\n"])
def test_chunks_of_a_byte_and_long_extensions(server, tiny):
    with unharmed(server, within=4.0, memory=96 * MB), connect(server.url) as sock:
        sock.sendall(head("POST /api/show HTTP/1.1", "Transfer-Encoding: chunked"))
        with suppress(ConnectionError, TimeoutError):
            for _ in range(20):
                sock.sendall(tiny)


@pytest.mark.parametrize("trailer", [b"X: " + b"a" * 100_000 + b"\r\n", b"X: a\r\n" * 1000])
def test_trailers_without_an_end(server, trailer):
    with unharmed(server, within=4.0, memory=96 * MB), connect(server.url) as sock:
        sock.sendall(head("POST /api/show HTTP/1.1", "Transfer-Encoding: chunked") + b"0\r\n")
        with suppress(ConnectionError, TimeoutError):
            for _ in range(500):
                sock.sendall(trailer)


@pytest.mark.parametrize("route", ["/api/generate", "/v1/chat/completions"])
def test_bodies_that_unpack_to_a_hundred_times_their_size(server, route):
    plain = bytes(200 * MB)
    packed = {"gzip": gzip.compress(plain, 1), "deflate": zlib.compress(plain, 1), "zstd": zstd.compress(plain)}
    del plain
    with unharmed(server, memory=96 * MB):
        for coding, body in packed.items():
            request = head(f"POST {route} HTTP/1.1", f"Content-Length: {len(body)}", f"Content-Encoding: {coding}",
                           "Connection: close")  # fmt: skip
            assert status(exchange(server.url, request + body)) == 400


def test_many_empty_frames(server):
    frames = (b"\x50\x2a\x4d\x18" + bytes(4)) * (7 * MB // 8)
    request = head("POST /v1/completions HTTP/1.1", f"Content-Length: {len(frames)}", "Content-Encoding: zstd",
                   "Connection: close")  # fmt: skip
    with unharmed(server, within=2.0, memory=128 * MB):
        assert status(exchange(server.url, request + frames)) == 400


def test_many_tiny_frames(server):
    frames = (b"\x28\xb5\x2f\xfd\x20\0\1\0\0") * (7 * MB // 9)
    request = head("POST /v1/completions HTTP/1.1", f"Content-Length: {len(frames)}", "Content-Encoding: zstd",
                   "Connection: close")  # fmt: skip
    with unharmed(server, within=2.0, memory=128 * MB):
        answer = exchange(server.url, request + frames)
    assert status(answer) == 400
    assert b"the body has more than 1000 zstd frames" in answer


def test_many_large_bodies_at_once(server):
    """Twelve bodies of 7 MB that stop just before their end: only four have room."""
    sent = b'{"model":"' + b"a" * (7 * MB)

    def one(_):
        with connect(server.url) as sock:
            sock.sendall(head("POST /api/chat HTTP/1.1", f"Content-Length: {len(sent) + 9}"))
            with suppress(ConnectionError):
                sock.sendall(sent)
            return until_closed(sock)

    with unharmed(server, memory=160 * MB), ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(one, range(12)))
    statuses = [status(each) for each in answers]
    assert statuses.count(408) >= 2  # those that had room
    assert statuses.count(503) >= 4
    assert b"Retry-After: 1\r\n" in next(each for each in answers if status(each) == 503)
    assert server.json("/api/generate", {"model": "scripted", "prompt": "a", "stream": False})["done"]


def test_a_body_that_stalls_and_one_that_trickles(server):
    upload = f"POST /api/blobs/sha256:{'0' * 64}"
    with connect(server.url) as still, connect(server.url) as slow, connect(server.url) as blob, unharmed(server):
        for sock, line in ((still, "POST /api/chat"), (slow, "POST /v1/completions"), (blob, upload)):
            sock.sendall(head(f"{line} HTTP/1.1", "Content-Length: 1000000") + b"{")
        start = time.monotonic()
        threading.Thread(target=_trickle, args=(slow,), daemon=True).start()
        assert status(until_closed(still)) == 408
        assert status(until_closed(slow)) == 408
        assert status(until_closed(blob)) == 408
        assert time.monotonic() - start < 15


def _trickle(sock):
    with suppress(OSError):
        while True:
            sock.sendall(b" ")
            time.sleep(0.2)


def test_a_body_that_is_slow_but_not_too_slow(server):
    body = json.dumps({"model": "scripted", "prompt": "a", "stream": False}).encode() + b" " * 12_000
    with connect(server.url) as sock:
        sock.sendall(head("POST /api/generate HTTP/1.1", f"Content-Length: {len(body)}", "Connection: close"))
        for start in range(0, len(body), 1000):
            sock.sendall(body[start : start + 1000])
            time.sleep(0.15)
        assert status(until_closed(sock)) == 200


def test_a_body_that_is_cut_or_garbled(server):
    with connect(server.url) as sock:
        sock.sendall(head("POST /api/show HTTP/1.1", "Transfer-Encoding: chunked") + b"5\r\nabcdefgh\r\n")
        assert status(until_closed(sock)) == 400


def test_uploads_are_no_larger_than_the_limit(server):
    data = bytes(17 * MB)
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    with unharmed(server, memory=96 * MB):
        announced = head(f"POST /api/blobs/{digest} HTTP/1.1", f"Content-Length: {len(data)}", "Connection: close")
        assert status(exchange(server.url, announced)) == 413
        answer, taken = flood(server, f"POST /api/blobs/{digest}")
    assert status(answer) == 413
    assert taken < 200 * MB
    assert [path for path in (server.store / "blobs").iterdir() if path.stat().st_size > 10 * MB] == []


def chat_of(size):
    return chat_pb2.ChatRequest(model="scripted", messages=[message_pb2.ChatMessage(role="user", content="a" * size)])


def code_of(call, *args, **more):
    """Return the status and text that a call fails with."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*args, **more)
    return caught.value.code(), caught.value.details()


@pytest.mark.parametrize("packing", [grpc.Compression.NoCompression, grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_messages_are_measured_unpacked(server, channel, packing):
    stub = chat_pb2_grpc.ChatServiceStub(channel)
    with unharmed(server, memory=96 * MB):
        for size in (9 * MB, 50 * MB):
            code, text = code_of(stub.Chat, chat_of(size), compression=packing)
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED, text


def test_many_large_messages_at_once(server, channel):
    stub = chat_pb2_grpc.ChatServiceStub(channel)
    message = chat_of(3 * MB)
    code_of(stub.Chat, message)  # the model is loaded, and what works on large prompts has its memory
    with unharmed(server, within=4.0, memory=400 * MB):
        calls = [stub.Chat.future(message, timeout=60) for _ in range(24)]
        codes = [call.code() for call in calls]
    late = grpc.StatusCode.DEADLINE_EXCEEDED  # half a second is short for a message where two cores do all this
    assert set(codes) <= {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED, late}


def test_calls_that_send_half_a_message_lock_nobody_out(server, channel):
    version = server_pb2_grpc.ServerServiceStub(channel)
    version.GetServerInfo(server_pb2.GetServerInfoRequest())
    with unharmed(server, memory=96 * MB), ThreadPoolExecutor(8) as pool:
        attacks = [pool.submit(open_calls, server.grpc, 50, 4 * MB, seconds=4) for _ in range(4)]
        time.sleep(0.5)
        for _ in range(5):
            start = time.monotonic()
            version.GetServerInfo(server_pb2.GetServerInfoRequest())
            assert time.monotonic() - start < 2
        for each in attacks:
            each.result()


def test_an_upload_over_grpc_is_no_larger_than_the_limit(server, channel):
    stub = models_pb2_grpc.ModelsServiceStub(channel)

    def parts(size):
        yield models_pb2.UploadBlobRequest(config={"digest": "sha256:" + "0" * 64, "size_bytes": size})
        for _ in range(40):
            yield models_pb2.UploadBlobRequest(chunk=bytes(MB))

    for size in (17 * MB, 0):
        code, text = code_of(stub.UploadBlob, parts(size))
        assert (code, "PUNA_MAX_UPLOAD_BYTES" in text) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
