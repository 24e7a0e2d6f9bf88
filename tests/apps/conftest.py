"""Programs that people use, unmodified, against a running server: `make test-apps` runs this folder."""

import os
import secrets
import socketserver
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest
from tests.apps import installed
from tests.e2e.server import MODELS, PUNA, serving
from tests.libraries.conftest import clients_python  # noqa: F401 - a fixture

HERE = Path(__file__).parent
SCRIPTS = HERE / "scripts"
STUB = HERE / "stub"
SCREENSHOTS = HERE.parents[1] / "build/apps"
"""The folder where the tests leave pictures of what a user sees."""
CONTEXT = 1 << 18
"""Tokens of context: coding agents send prompts of some ten thousand tokens."""

collect_ignore_glob = [] if os.environ.get("PUNA_APPS") else ["test_*.py"]

QUIET = {
    "DO_NOT_TRACK": "1",
    "NO_UPDATE_NOTIFIER": "1",
    "HF_HUB_OFFLINE": "1",
    "NODE_USE_ENV_PROXY": "1",
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
}
"""Variables that many programs read: no statistics, no version checks, no proxy for this machine."""


class Outside(socketserver.ThreadingTCPServer):
    """The proxy of every program. It refuses each request and records the request's first line."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Refusal)
        self.asked = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Refusal(socketserver.StreamRequestHandler):
    def handle(self):
        self.server.asked.append(self.rfile.readline(1000).decode(errors="replace").strip())
        self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


@pytest.fixture(scope="session")
def outside():
    with Outside() as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield proxy
        proxy.shutdown()


@pytest.fixture(autouse=True)
def nothing_leaves(outside):
    """No program may ask for anything beyond this machine."""
    outside.asked.clear()
    yield
    assert outside.asked == []


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A server with the model `stub`, whose answers a test decides (stub/puna_stub.py), beside llamita."""
    path = os.pathsep.join(filter(None, [str(STUB), os.environ.get("PYTHONPATH")]))
    store = tmp_path_factory.mktemp("home") / "models"
    with serving(store, PYTHONPATH=path, OLLAMA_CONTEXT_LENGTH=str(CONTEXT), OMP_WAIT_POLICY="passive") as running:
        command = [PUNA, "create", "stub", "--gguf", MODELS / "scripted.gguf", "--backend", "stub"]
        command += ["--template", (STUB / "template.txt").read_text()]
        subprocess.run(command, env=os.environ | {"PUNA_GRPC_HOST": running.grpc}, check=True, timeout=60)
        yield running


class Desk:
    """A home and a working folder for a program, with a note in it that only the program can read to the model."""

    def __init__(self, folder, outside):
        self.home, self.work = folder / "home", folder / "work"
        self.home.mkdir()
        self.work.mkdir()
        self.secret = f"mango-{secrets.token_hex(8)}"
        self.note = self.work / "note.txt"
        self.note.write_text(f"The secret is {self.secret}.\n")
        self.environment = QUIET | {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.home),
            "TMPDIR": str(folder),
        }
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
            self.environment[name] = outside.url

    def run(self, *command, seconds=120, **variables):
        """Run a program to its end; return what it printed."""
        done = subprocess.run(
            command,
            cwd=self.work,
            env=self.environment | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode:
            pytest.fail(f"{command[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}", pytrace=False)
        return done.stdout


@pytest.fixture
def desk(outside):
    # Chromium puts a Unix socket below its temporary folder, and the address of such a socket has room for a hundred
    # bytes. The folders of pytest are nearly as long.
    with tempfile.TemporaryDirectory(prefix="desk-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Desk(Path(folder), outside)


@pytest.fixture(scope="session")
def agents(clients_python):  # noqa: F811 - the fixture
    """The folder with the coding agents from npm."""
    return installed.node("agents", clients_python.parent)
