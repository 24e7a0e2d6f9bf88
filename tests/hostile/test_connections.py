"""Connections: idle, slow and silent ones lock no others out, and honest ones may take their time."""

import json
import os
import resource
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import grpc
import pytest
from tests.e2e.server import MODELS, serving, wait_until
from tests.hostile.bounds import ping, unharmed
from tests.hostile.wire import (
    call_frames,
    connect,
    exchange,
    head,
    is_closed,
    open_http2,
    ping_frame,
    reset_frame,
    status,
    until_closed,
)

from puna_client.v1 import generate_pb2, server_pb2, server_pb2_grpc

MB = 1 << 20
SCRIPTED = Path(__file__).parents[1] / "plugins" / "scripted"
LONG = "@together 3000000"
"""A prompt whose answer goes on for a minute, and is too much for the buffers of a socket."""
KEPT = ("Connection: keep-alive",)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(
        tmp_path_factory.mktemp("home") / "models",
        PUNA_MAX_CONNECTIONS="60",
        PUNA_MAX_CONNECTIONS_PER_ADDRESS="40",
        PUNA_MAX_GRPC_CONNECTIONS="30",
        PUNA_HEADER_TIMEOUT="1",
        PUNA_IDLE_TIMEOUT="3",
        PUNA_BODY_TIMEOUT="2",
        PUNA_WRITE_TIMEOUT="2",
        PYTHONPATH=os.pathsep.join([str(SCRIPTED), os.environ.get("PYTHONPATH", "")]),
    ) as running:
        running.upload("plain", MODELS / "scripted.gguf")
        running.make_for("scripted", "scripted")
        running.json("/api/generate", {"model": "scripted", "prompt": "a", "raw": True, "stream": False})
        yield running


def generating(prompt, *headers, version="1.1", route="/api/generate", **fields):
    body = json.dumps({"model": "scripted", "prompt": prompt, "raw": True} | fields).encode()
    return head(f"POST {route} HTTP/{version}", f"Content-Length: {len(body)}", *headers) + body


def test_idle_connections_make_room(server):
    with ExitStack() as held, unharmed(server):
        socks = [held.enter_context(connect(server.url)) for _ in range(200)]
        assert is_closed(socks[0], 5)  # the one that waited longest
        assert ping(server) < 1


@pytest.mark.parametrize(
    "begun",
    [b"", b"GET / HTT", b"GET / HTTP/1.1\r\nHost: a\r\nX: ", head("POST /api/chat HTTP/1.1", "Content-Length: 9")],
)
def test_connections_that_send_half_a_request_make_room(server, begun):
    with ExitStack() as held, unharmed(server):
        for _ in range(100):
            sock = held.enter_context(connect(server.url))
            with suppress(ConnectionError):
                sock.sendall(begun)
        for _ in range(5):
            assert ping(server) < 1


def test_a_head_that_trickles(server):
    with connect(server.url) as sock, unharmed(server):
        start = time.monotonic()
        with suppress(ConnectionError):
            sock.sendall(b"GET /api/version HTTP/1.1\r\nHost: a\r\n")
            while time.monotonic() - start < 8:
                sock.sendall(b"X: a\r\n")
                time.sleep(0.1)
        assert time.monotonic() - start < 6


@pytest.mark.parametrize("line", [b"X: " + b"a" * 500_000 + b"\r\n", b"X: a\r\n" * 10_000])
def test_a_head_without_an_end(server, line):
    with connect(server.url) as sock, unharmed(server, memory=64 * MB):
        with suppress(ConnectionError, TimeoutError):
            sock.sendall(b"GET /api/version HTTP/1.1\r\n")
            for _ in range(100):
                sock.sendall(line)
        assert status(until_closed(sock)) in (0, 400, 431)


def test_an_idle_connection_is_closed_and_a_used_one_is_kept(server):
    with connect(server.url) as idle, connect(server.url) as used:
        for _ in range(8):
            used.sendall(head("GET /api/version HTTP/1.1"))
            assert status(used.recv(1 << 16)) == 200
            time.sleep(0.5)
        assert is_closed(idle, 3)


def test_slow_work_is_not_cut(server):
    """Longer than every timeout: the model's first token, then a pause in its answer."""
    answer = exchange(server.url, generating("@wait 3.5 a @wait 3.5 b", "Connection: close"))
    assert status(answer) == 200
    assert answer.count(b'"done":true') == 1


def test_a_client_that_does_not_read_ends_its_stream(server):
    with connect(server.url, receive_buffer=4096) as sock:
        sock.sendall(generating(LONG))
        start = time.monotonic()
        wait_until(lambda: _running(server) == 1)
        wait_until(lambda: _running(server) == 0, 30)
        assert time.monotonic() - start > 1.5  # it ran until the timeout


def _running(server):
    with grpc.insecure_channel(server.grpc) as channel:
        stub = server_pb2_grpc.ServerServiceStub(channel)
        try:
            return len(stub.ListRequests(server_pb2.ListRequestsRequest(page_size=1000)).requests)
        except grpc.RpcError:  # gRPC drops calls while a thousand others are in front of them
            return -1


def test_when_all_are_at_work_others_are_refused(server):
    with ExitStack() as held:
        for _ in range(40):
            held.enter_context(connect(server.url)).sendall(generating("@wait 600 a"))
        wait_until(lambda: _running(server) == 40)
        refused = exchange(server.url, head("GET /api/version HTTP/1.1"))
        assert status(refused) == 503
        assert b"Retry-After: 1\r\n" in refused
    wait_until(lambda: status(exchange(server.url, head("GET / HTTP/1.1", "Connection: close"))) == 200)


def test_without_file_handles_the_server_waits_and_says_so_once(tmp_path):
    with serving(tmp_path / "models") as server:
        ping(server)
        before = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        handles = Path(f"/proc/{server.process.pid}/fd")
        open_now = len(list(handles.iterdir()))
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (open_now + 10, before[1]))
        with ExitStack() as held:
            for _ in range(100):
                held.enter_context(connect(server.url))
            assert ping(server) < 3
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, before)
        assert ping(server) < 3
        assert (handles / "2").stat().st_size < 10_000  # the log


STREAMS = {
    "/api/generate": {"model": "plain", "prompt": "a"},
    "/api/chat": {"model": "plain", "messages": [{"role": "user", "content": "a"}]},
    "/api/pull": {"model": "127.0.0.1:1/a/b", "insecure": True},
    "/api/create": {"model": "copied", "from": "plain"},
    "/v1/completions": {"model": "plain", "prompt": "a", "stream": True},
    "/v1/chat/completions": {"model": "plain", "messages": [{"role": "user", "content": "a"}], "stream": True},
    "/v1/responses": {"model": "plain", "input": "a", "stream": True},
    "/v1/messages": {
        "model": "plain",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "a"}],
        "stream": True,
    },
}


@pytest.mark.parametrize("headers", [KEPT, ()])
@pytest.mark.parametrize("route", STREAMS)
def test_streams_to_http_1_0_end_with_the_connection(server, route, headers):
    body = json.dumps(STREAMS[route]).encode()
    answer = exchange(
        server.url, head(f"POST {route} HTTP/1.0", f"Content-Length: {len(body)}", *headers) + body, timeout=10
    )
    top, _, text = answer.partition(b"\r\n\r\n")
    assert status(top) in (200, 500)
    assert b"keep-alive" not in top.lower()
    assert b"chunked" not in top.lower()
    assert text


def test_answers_with_a_length_keep_a_connection_of_http_1_0(server):
    with connect(server.url) as sock:
        for _ in range(2):
            sock.sendall(head("GET /api/version HTTP/1.0", *KEPT))
            answer = sock.recv(1 << 16)
            assert status(answer) == 200
            assert b"Connection: keep-alive\r\n" in answer


def test_idle_grpc_connections_are_closed(server):
    with ExitStack() as held, unharmed(server):
        plain = [held.enter_context(connect(server.grpc)) for _ in range(10)]
        spoken = [held.enter_context(open_http2(server.grpc)) for _ in range(10)]
        assert is_closed(plain[0], 5)
        assert is_closed(spoken[0], 10)


def test_grpc_connections_beyond_the_cap_are_closed(server):
    time.sleep(0.5)
    with ExitStack() as held, unharmed(server):
        socks = [held.enter_context(connect(server.grpc)) for _ in range(80)]
        assert sum(is_closed(each, 0.1) for each in reversed(socks)) >= 50
    with grpc.insecure_channel(server.grpc) as channel:
        grpc.channel_ready_future(channel).result(20)


def test_pings_every_ten_seconds_are_accepted_and_floods_are_not(server):
    with open_http2(server.grpc) as sock, unharmed(server):
        with suppress(ConnectionError):
            for _ in range(2000):
                sock.sendall(ping_frame())
        assert is_closed(sock, 5)


def test_calls_that_are_reset_at_once(server):
    path = "/puna.v1.GenerateService/StreamGenerate"
    message = generate_pb2.GenerateRequest(model="scripted", text="@endless", raw=True).SerializeToString()

    def attack(_):
        with suppress(OSError), open_http2(server.grpc) as sock:
            for number in range(500):
                sock.sendall(call_frames(1 + 2 * number, path, message, ends=True) + reset_frame(1 + 2 * number))

    with unharmed(server), ThreadPoolExecutor(4) as pool:
        list(pool.map(attack, range(4)))
    wait_until(lambda: _running(server) == 0, 30)


def test_a_grpc_client_that_does_not_read_ends_its_stream(server):
    message = generate_pb2.GenerateRequest(model="scripted", text=LONG, raw=True).SerializeToString()
    with open_http2(server.grpc) as sock:
        sock.sendall(call_frames(1, "/puna.v1.GenerateService/StreamGenerate", message, ends=True))
        start = time.monotonic()
        wait_until(lambda: _running(server) == 1)
        wait_until(lambda: _running(server) == 0, 30)
        assert time.monotonic() - start > 1.5  # it ran until the timeout


def test_clients_that_do_not_read_give_their_slots_back(server):
    """They take every slot of the model. Another client waits until the timeout of their answers, and no longer."""
    message = generate_pb2.GenerateRequest(model="scripted", text=LONG, raw=True).SerializeToString()
    with ExitStack() as held:
        for _ in range(20):
            sock = held.enter_context(open_http2(server.grpc))
            sock.sendall(call_frames(1, "/puna.v1.GenerateService/StreamGenerate", message, ends=True))
        wait_until(lambda: _running(server) == 20)
        asked = {"model": "scripted", "prompt": "a b", "raw": True, "stream": False}
        assert server.json("/api/generate", asked)["done"]
        wait_until(lambda: _running(server) == 0, 30)


def test_many_connections_from_one_address_leave_room_for_another(server):
    with ExitStack() as held, unharmed(server):
        for _ in range(45):
            held.enter_context(connect(server.url)).sendall(b"GET")
        with socket.socket() as other:
            other.bind(("127.0.0.2", 0))
            other.settimeout(5)
            other.connect(tuple_of(server.url))
            other.sendall(head("GET /api/version HTTP/1.1"))
            assert status(other.recv(1 << 16)) == 200


def tuple_of(url):
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)
