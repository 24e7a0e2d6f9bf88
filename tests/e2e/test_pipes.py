"""The command line in pipes that close, on full disks, with closed streams, and with encodings that lack characters."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from tests.e2e.server import MODELS, PUNA

SIGPIPE, SIGINT = 128 + signal.SIGPIPE, 128 + signal.SIGINT


@pytest.fixture
def start(server, tmp_path):
    """A function that starts a command without a terminal."""
    processes = []

    def run(*words, stdout=subprocess.PIPE, **environment):
        process = subprocess.Popen(
            [PUNA, *words],
            env=os.environ | {"PUNA_GRPC_HOST": server.grpc, "HOME": str(tmp_path)} | environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        with process:
            if process.poll() is None:
                process.kill()


@pytest.mark.parametrize(
    "words",
    [
        ["list"],
        ["show", "llamita", "--license"],
        ["requests", "--json"],
        ["top", "--once", "--interval", "0.1"],
        ["plugins"],
        ["doctor", "--quick"],
    ],
)
def test_a_pipe_that_closes_early_ends_the_command_quietly(start, words):
    reading, writing = os.pipe()
    os.close(reading)
    process = start(*words, stdout=writing)
    os.close(writing)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == SIGPIPE
    # `doctor` reports progress there.
    assert not re.search(rb"Error|Traceback|ignored", errors), errors


@pytest.fixture
def endless(server):
    """The name of a model whose answer to "b" has no end."""
    server.upload("typed", MODELS / "scripted.gguf", template="{{ .Prompt }}")
    return "typed"


def test_a_reader_of_an_answer_that_leaves_stops_it(start, endless):
    process = start("run", endless, "b")
    assert process.stdout.read(100)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == SIGPIPE


def test_ctrl_c_ends_an_answer_without_a_traceback(start, endless):
    process = start("run", endless, "b")
    assert process.stdout.read(100)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (SIGINT, b"")


def test_a_full_disk_is_not_blamed_on_the_store(start):
    with Path("/dev/full").open("wb") as full:
        process = start("list", stdout=full)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors == b"Error: the output cannot be written: No space left on device\n"


def test_an_encoding_that_lacks_characters_is_named(start, server):
    server.json("/api/create", {"model": "accented", "from": "llamita", "system": "Café ✓", "stream": False})
    process = start("show", "accented", "--system", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    text, errors = process.communicate(timeout=60)
    assert (process.returncode, text) == (0, b"Caf? ?\n")
    assert errors.startswith(b"Note: characters that the encoding ascii lacks")
