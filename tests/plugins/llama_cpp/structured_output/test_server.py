"""The server process by itself: its messages, and what becomes of its children."""

import marshal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from puna_llama_cpp.structured_output.wire import HEADER, MASK, MEMORY_LIMIT, REFUSED, TIME_LIMIT, TOKEN

TOKENS = [bytes([value]) for value in range(256)]
END = 256
LIMITS = {"seconds": 5.0, "mask_seconds": 1.0, "memory_bytes": 256 << 20}


@contextmanager
def running(**limits):
    """Start a server with a vocabulary of bytes, and yield its process and a function that connects to a new child."""
    control, theirs = socket.socketpair()
    with control, theirs:
        command = [sys.executable, "-m", "puna_llama_cpp.structured_output.server", str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()
        data = marshal.dumps(([*TOKENS, b"\xff<end>"], [END], END, {"<end>": END}, LIMITS | limits))
        control.sendall(HEADER.pack(MASK, len(data)) + data)
        lines = []

        def connect(kind, text):
            ours, child = socket.socketpair()
            ours.settimeout(30)
            with child:
                socket.send_fds(control, [b"+"], [child.fileno()])
            request = f"{kind}\n{text}".encode()
            ours.sendall(HEADER.pack(MASK, len(request)) + request)
            lines.append(ours)
            return ours

        try:
            yield process, connect
        finally:
            for line in lines:
                line.close()
            control.close()
            process.wait(20)


def receive(line):
    kind, length = HEADER.unpack(line.recv(HEADER.size, socket.MSG_WAITALL))
    return kind, line.recv(length, socket.MSG_WAITALL) if length else b""


def allowed(message):
    kind, mask = message
    assert kind == MASK
    bits = int.from_bytes(mask, "little")
    return {token for token in range(END + 1) if bits >> token & 1}


def forced(message):
    _, data = message
    return data[-1 - data[-1] : -1]


def children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_each_token_is_answered_with_the_next_mask():
    with running() as (_, connect):
        line = connect("regex", "ab?")
        assert allowed(receive(line)) == {ord("a")}
        line.send(TOKEN.pack(ord("a")))
        assert allowed(receive(line)) == {ord("b"), END}
        line.send(TOKEN.pack(ord("b")))
        assert allowed(receive(line)) == {END}


def test_the_text_that_must_follow_comes_with_the_mask():
    with running() as (_, connect):
        line = connect("regex", "abc(d|e)f{300}")
        expected = [b"abc", b"bc", b"c", b"", b"f" * 255, b"f" * 255]
        for token, text in zip("abcdff", expected, strict=True):
            assert forced(receive(line)) == text
            line.send(TOKEN.pack(ord(token)))
        assert allowed(receive(line)) == {ord("f")}


def test_children_know_nothing_of_each_other():
    with running() as (_, connect):
        first, second = connect("regex", "a+"), connect("regex", "b+")
        assert (allowed(receive(first)), allowed(receive(second))) == ({ord("a")}, {ord("b")})
        first.close()
        second.send(TOKEN.pack(ord("b")))
        assert allowed(receive(second)) == {ord("b"), END}


def test_a_constraint_that_cannot_be_enforced_is_refused_with_a_reason():
    with running() as (_, connect):
        kind, reason = receive(connect("regex", "("))
        assert (kind, reason.startswith(b"regular expression cannot be")) == (REFUSED, True)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"seconds": 0.2, "memory_bytes": 1 << 40}, TIME_LIMIT),
        ({"seconds": 60.0, "memory_bytes": 32 << 20}, MEMORY_LIMIT),
    ],
)
def test_a_child_beyond_a_limit_is_killed_and_the_host_hears_why(limits, expected):
    slow = '{"allOf": [{"type": "integer", "multipleOf": 997}, {"multipleOf": 991}, {"multipleOf": 983}]}'
    with running(**limits) as (process, connect):
        assert receive(connect("json_schema", slow))[0] == expected
        until(lambda: not children(process.pid))
        assert allowed(receive(connect("regex", "a"))) == {ord("a")}


def test_a_child_ends_with_its_socket_whatever_it_is_doing():
    slow = '{"allOf": [{"type": "integer", "multipleOf": 997}, {"multipleOf": 991}, {"multipleOf": 983}]}'
    with running(seconds=60.0, memory_bytes=1 << 40) as (process, connect):
        line = connect("json_schema", slow)
        until(lambda: children(process.pid))
        line.close()
        until(lambda: not children(process.pid))


def test_all_end_with_the_control_socket():
    with running() as (process, connect):
        receive(connect("regex", "a+"))
        [child] = children(process.pid)
    assert process.returncode == 0
    until(lambda: not Path(f"/proc/{child}").exists())


def test_the_process_starts_no_threads():
    with running() as (process, connect):
        receive(connect("regex", "a"))
        assert [task.name for task in Path(f"/proc/{process.pid}/task").iterdir()] == [str(process.pid)]
