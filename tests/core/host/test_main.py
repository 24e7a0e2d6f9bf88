"""The child program as its parent sees it."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager

import pytest

from puna.host.channel import READY

HOST = [sys.executable, "-P", "-m", "puna.host", "puna_llama_cpp:LlamaCppBackend"]


@contextmanager
def host(tmp_path):
    with subprocess.Popen(
        HOST,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PUNA_HOST_SOCKET": str(tmp_path / "s")},
        text=True,
    ) as process:
        try:
            assert process.stdout.readline() == f"{READY}\n"
            yield process
        finally:
            process.kill()


def gone(pid):
    """Whether a process has ended; a zombie that nobody has waited for has."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_ends_when_standard_input_closes(tmp_path):
    with host(tmp_path) as process:
        assert (tmp_path / "s").is_socket()
        process.stdin.close()
        assert process.wait(10) == 0


def test_ends_when_told_to(tmp_path):
    with host(tmp_path) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_lets_the_parent_decide_about_an_interrupt(tmp_path):
    with host(tmp_path) as process:
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)


def test_what_is_printed_later_is_no_ready_line(tmp_path):
    with host(tmp_path) as process:
        process.stdin.close()
        assert process.stdout.read() == ""


def test_dies_with_its_parent(tmp_path):
    """The parent is killed, and its end of our standard input is kept open by another."""
    parent = textwrap.dedent("""
        import os, subprocess, sys
        reading, writing = os.pipe()
        host = subprocess.Popen(sys.argv[1:], stdin=reading, stdout=subprocess.PIPE)
        host.stdout.readline()
        holder = subprocess.Popen(["sleep", "20"], pass_fds=[writing])
        print(host.pid, holder.pid, flush=True)
        input()
    """)
    environment = os.environ | {"PUNA_HOST_SOCKET": str(tmp_path / "s")}
    with subprocess.Popen(
        [sys.executable, "-c", parent, *HOST], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        host_pid, holder_pid = map(int, process.stdout.readline().split())
        process.kill()
        try:
            deadline = time.monotonic() + 10
            while not gone(host_pid):
                assert time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            os.kill(holder_pid, signal.SIGKILL)
