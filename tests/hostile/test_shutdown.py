"""Signals end a server in one of two documented ways, whatever it is doing: no crash, no traceback, nothing left.

PUNA_STOPS says how many servers are stopped by two signals in the midst of their streams (3 by default; 100 take
about five minutes).
"""

import contextlib
import http.client
import json
import os
import pty
import random
import re
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.e2e.server import wait_until

from puna_client.v1 import generate_pb2, generate_pb2_grpc

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
STOPS = int(os.environ.get("PUNA_STOPS", "3"))
ENDING = "the server is shutting down"
# Six seconds of words, which no guard against repetition ends.
LONG = " ".join(f"w{number} @wait .01" for number in range(550))


def over_rest(url, lines, prompt=LONG):
    """Stream an answer; keep its lines, and None at its end if it had one."""
    body = {"model": "scripted", "prompt": prompt, "raw": True, "options": {"num_ctx": 8192}}
    with contextlib.suppress(ConnectionError, ValueError, http.client.HTTPException):
        request = urllib.request.Request(f"{url}/api/generate", json.dumps(body).encode())
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                for line in answer:
                    lines.append(json.loads(line))
        except urllib.error.HTTPError as error:
            with error:
                lines.append(json.loads(error.read()) | {"status": error.code})
        lines.append(None)


def over_grpc(address, lines, prompt=LONG):
    """Do the same over gRPC."""
    with grpc.insecure_channel(address) as channel:
        request = generate_pb2.GenerateRequest(model="scripted", text=prompt, raw=True)
        request.options.runtime.context_length = 8192
        try:
            for message in generate_pb2_grpc.GenerateServiceStub(channel).StreamGenerate(request, timeout=60):
                lines.append(message)
        except grpc.RpcError as error:
            lines.append((error.code(), error.details()))


@contextlib.contextmanager
def streaming(server, count=3):
    """Run streams over both faces; gives their lines."""
    streams = [[] for _ in range(2 * count)]
    threads = [threading.Thread(target=over_rest, args=(server.url, lines)) for lines in streams[:count] if server.url]
    threads += [threading.Thread(target=over_grpc, args=(server.grpc, each)) for each in streams[count:] if server.grpc]
    for thread in threads:
        thread.start()
    wait_until(lambda: sum(map(bool, streams)) == len(threads) or not any(each.is_alive() for each in threads))
    yield streams
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a stream has no end"


@pytest.mark.parametrize("attempt", range(STOPS))
def test_a_second_signal_ends_a_server_at_once(start, attempt):
    dice = random.Random(attempt)
    command = "core" if attempt % 3 == 2 else "serve"
    server = start(command).ready()
    with streaming(server):
        server.signal(dice.choice((signal.SIGINT, signal.SIGTERM)))
        time.sleep(dice.random() * 0.3)
        second = dice.choice((signal.SIGINT, signal.SIGTERM))
        server.signal(second)
        start = time.monotonic()
        for _ in range(dice.randrange(3)):
            server.signal(dice.choice((signal.SIGINT, signal.SIGTERM)))
        server.process.wait(10)
        took = time.monotonic() - start
    # Two signals that arrive together may be heard in either order.
    status, said = server.ended()
    assert status in {128 + second, 130, 143}
    assert said == []
    assert took < 3


def test_a_first_signal_lets_requests_finish_and_ends_the_rest(start):
    server = start("serve", PUNA_MAX_DRAIN_SECONDS="1.5").ready()
    short = [[], []]
    with streaming(server) as streams:
        words = "one @wait .8 two"
        asking = [
            threading.Thread(target=over_rest, args=(server.url, short[0], words)),
            threading.Thread(target=over_grpc, args=(server.grpc, short[1], words)),
        ]
        for each in asking:
            each.start()
        wait_until(lambda: all(short))
        server.signal(signal.SIGINT)
        for each in asking:
            each.join(10)
        assert (short[0][-2]["done"], short[0][-1]) == (True, None)
        assert short[1][-1].HasField("done")
        late = [[], []]
        over_rest(server.url, late[0], "one")
        over_grpc(server.grpc, late[1], "one")
        assert late[0] == [{"error": ENDING, "status": 503}, None]
        # The listener is closed, so that clients connect to another server.
        assert late[1][0][0] is grpc.StatusCode.UNAVAILABLE
    assert [each[-2:] for each in streams[:3]] == [[{"error": ENDING}, None]] * 3
    assert [each[-1] for each in streams[3:]] == [(grpc.StatusCode.UNAVAILABLE, ENDING)] * 3
    assert server.ended() == (0, [])


def test_requests_are_accepted_for_a_while_after_the_signal(start):
    """A balancer needs time to notice that a server leaves. Until then it sends requests, and they are served."""
    server = start("serve", PUNA_DRAIN_DELAY="3s", PUNA_MAX_DRAIN_SECONDS="0.5").ready()
    with grpc.insecure_channel(server.grpc) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watched = health.Watch(health_pb2.HealthCheckRequest(), timeout=30)
        assert next(watched).status == SERVING
        running = []
        client = threading.Thread(target=over_grpc, args=(server.grpc, running))
        client.start()
        wait_until(lambda: running)
        start_of_end = time.monotonic()
        server.signal(signal.SIGTERM)
        assert next(watched).status == NOT_SERVING
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=5).status == NOT_SERVING
        late = [[], []]
        over_rest(server.url, late[0], "one")
        over_grpc(server.grpc, late[1], "one")
        assert (late[0][-2]["done"], late[1][-1].HasField("done")) == (True, True)
        with urllib.request.urlopen(f"{server.url}/api/version", timeout=5) as answer:
            assert answer.headers["Connection"] == "close"
        with pytest.raises(grpc.RpcError) as ended:
            next(watched)
        assert (ended.value.code(), reason(ended.value)) == (grpc.StatusCode.UNAVAILABLE, "SERVER_ENDING")
        assert time.monotonic() - start_of_end > 2.9
    client.join(30)
    assert running[-1] == (grpc.StatusCode.UNAVAILABLE, ENDING)
    assert server.ended() == (0, [])


def reason(error):
    """Return the reason in the details of a failed call."""
    info = error_details_pb2.ErrorInfo()
    raw = dict(error.trailing_metadata())["grpc-status-details-bin"]
    assert status_pb2.Status.FromString(raw).details[0].Unpack(info)
    return info.reason


def test_an_idle_server_ends_at_once(start):
    server = start("serve").ready()
    before = time.monotonic()
    with grpc.insecure_channel(server.grpc) as channel:
        watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=30)
        assert next(watched).status == SERVING
        server.signal(signal.SIGTERM)
        assert server.ended() == (0, [])
    assert time.monotonic() - before < 3


def handled(pid, number):
    """Tell whether a process has a handler for a signal."""
    with contextlib.suppress(OSError):
        (caught,) = re.findall(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
        return bool(int(caught, 16) >> (number - 1) & 1)


def test_a_terminal_that_closes_ends_a_server_in_order(start):
    master, slave = pty.openpty()
    server = start("serve", terminal=slave)
    os.close(slave)
    server.ready()
    # The server of an open terminal reads its configuration again.
    server.signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        server.process.wait(1)
    os.close(master)
    assert server.ended()[0] == 0


def test_a_server_under_nohup_stays(start):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which the server inherits
    try:
        server = start("serve")
    finally:
        signal.signal(signal.SIGHUP, before)
    server.ready()
    server.signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        server.process.wait(1)


@pytest.mark.parametrize("command", ["serve", "core", "rest"])
def test_a_signal_before_the_server_is_ready_ends_it(start, command):
    """Python itself has no handler for SIGTERM, so one that is there is ours."""
    for step in range(3):
        server = start(command)
        wait_until(lambda pid=server.process.pid: handled(pid, signal.SIGTERM))
        time.sleep(step * 0.2)
        number = (signal.SIGINT, signal.SIGTERM)[step % 2]
        server.signal(number)
        status, said = server.ended()
        ready = bool(said and said[0].startswith("Puna is ready"))
        assert said[ready:] == []
        assert status in ({0, 128 + number} if ready else {128 + number})


def test_a_bridge_alone_ends_its_streams_with_an_error(start):
    core = start("core").ready()
    bridge = start("rest", "--core", core.grpc, PUNA_MAX_DRAIN_SECONDS="0.5").ready()
    with streaming(bridge) as streams:
        bridge.signal(signal.SIGINT)
    assert [each[-2:] for each in streams[:3]] == [[{"error": ENDING}, None]] * 3
    assert bridge.ended() == (0, [])
    core.signal(signal.SIGTERM)
    assert core.ended() == (0, [])


def test_a_client_that_is_interrupted_says_nothing(start):
    server = start("serve").ready()
    for gap in (None, 0.02):
        client = start("run", "scripted", LONG[:2000], PUNA_GRPC_HOST=server.grpc)
        assert client.process.stdout.read(2)
        client.signal(signal.SIGINT)
        if gap is not None:
            time.sleep(gap)
            client.signal(signal.SIGINT)
        status, said = client.ended()
        assert status == 130
        assert not [line for line in said if "Error" in line or "Traceback" in line or "Interrupt" in line]
    server.signal(signal.SIGTERM)
    assert server.ended() == (0, [])
