"""A whole server as a user starts it: `puna serve` in a process of its own, on free ports, with a store of its own."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import grpc
import pytest

from puna.process.watchdog import BUSY
from puna_client.v1 import server_pb2, server_pb2_grpc

PUNA = Path(sys.executable).parent / "puna"
MODELS = Path(__file__).parents[1] / "models"
LOOP_SECONDS = "0.25"
"""Seconds of CPU that a turn of the event loop may take here: two busy cores double what it takes elsewhere."""
READY = re.compile(r"REST on (https?://[^,\s]+), gRPC on ([^,\s]+)")


def parents():
    """Map every live process to its parent; zombies do not count."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if state != "Z":
                found[int(entry.name)] = int(parent)
    return found


def command(pid):
    """Return a process's command line; empty once it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def wait_until(condition, seconds=20.0, failure="it did not happen in time"):
    """Wait for something that has no event to wait for; fail when it does not come."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, failure
        time.sleep(0.02)
    return value


@dataclass
class Server:
    """A running server."""

    process: subprocess.Popen
    url: str
    grpc: str
    store: Path
    errors: BinaryIO
    greeting: str
    """The line that the server wrote when it was ready."""

    def ask(self, path, body=None, method=None, timeout=60):
        """Send a request; return status, headers and body as bytes."""
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read()

    def json(self, path, body=None, **more):
        """Send a request that must succeed; return its JSON."""
        status, _, text = self.ask(path, body, **more)
        assert status == 200, text
        return json.loads(text)

    def open(self, path, body, timeout=60):
        """Begin a streamed answer."""
        return urllib.request.urlopen(
            urllib.request.Request(self.url + path, json.dumps(body).encode()), timeout=timeout
        )

    def log(self):
        """Return what the server has written to standard error."""
        return _text(self.errors)

    def hosts(self):
        """Process ids of the model hosts."""
        return [pid for pid, parent in parents().items() if parent == self.process.pid and b"puna.host" in command(pid)]

    def blob(self, data):
        """Upload bytes; return their digest."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        request = urllib.request.Request(f"{self.url}/api/blobs/{digest}", data, method="POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status in (200, 201)
        return digest

    def upload(self, name, *paths, **fields):
        """Make a model of GGUF files."""
        files = {path.name: self.blob(path.read_bytes()) for path in paths}
        self.json("/api/create", {"model": name, "files": files, "stream": False} | fields)

    def make_for(self, name, backend):
        """Make a model for a backend that need not read it: of the first format that it serves, if it serves any."""
        with grpc.insecure_channel(self.grpc) as channel:
            stub = server_pb2_grpc.ServerServiceStub(channel)
            listed = stub.GetServerInfo(server_pb2.GetServerInfoRequest(), timeout=60).backends
        formats = next(each.formats for each in listed if each.name == backend)
        fields = {"backend": backend}
        if formats:
            file = (MODELS / "scripted.gguf").read_bytes() if formats[0] == "gguf" else b"no model"
            fields |= {"format": formats[0], "files": {"file": self.blob(file)}}
        self.json("/api/create", {"model": name, "stream": False} | fields)


@contextmanager
def serving(store, program=PUNA, *, tracebacks=False, cwd=None, **environment):
    """Run a server until the block ends. `program`: the `puna` to start, if it is not this environment's.

    `cwd`: the folder in which it runs.

    `tracebacks`: whether the log may have some, because a plugin raises.
    It must leave nothing behind, its event loop must never stand still, and its log must have no traceback.
    """
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed below; a full pipe would stop the server
    process = subprocess.Popen(
        [program, "serve"],
        env=os.environ
        | {
            "OLLAMA_HOST": "127.0.0.1:0",
            "PUNA_GRPC_HOST": "127.0.0.1:0",
            "OLLAMA_MODELS": str(store),
            "PUNA_BATCHES": str(Path(store).parent / "batches"),
            "PUNA_MAX_LOOP_SECONDS": LOOP_SECONDS,
        }
        | environment,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    )
    try:
        line = process.stdout.readline()
        match = READY.search(line)
        if match is None:
            process.kill()
            process.wait()
            pytest.fail(f"the server did not start: {line}{_text(errors)}")
        server = Server(process, match[1], match[2], Path(store), errors, line.strip())
        yield server
    finally:
        hosts = [pid for pid, parent in parents().items() if parent == process.pid]
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdout.close()
            log = _text(errors)
            errors.close()
    alive = parents()
    assert [pid for pid in hosts if pid in alive] == []
    busy = [line for line in log.splitlines() if BUSY in line]
    assert not busy, "\n".join(busy)
    assert tracebacks or "Traceback" not in log, log


def _text(file):
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace")
