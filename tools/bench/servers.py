"""Starting the servers under test, and what their processes take."""

import asyncio
import hashlib
import os
import shlex
import signal
import socket
import ssl
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import aiohttp
import grpc


@dataclass(frozen=True, slots=True)
class Secrets:
    """The certificate and the key with which a client reaches a server with TLS and keys."""

    certificate: Path
    key: str

    @classmethod
    async def make(cls, program: str, folder: Path, environment: dict[str, str]) -> Self:
        """Make a certificate and a key for a Puna, and add their settings to its environment."""
        certificate, private = folder / "certificate.pem", folder / "private.pem"
        request = (
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 1 -subj /CN=localhost -addext"
        )
        names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
        await output("openssl", *request.split(), names, "-out", str(certificate), "-keyout", str(private))
        environment["PUNA_TLS_CERTIFICATE"], environment["PUNA_TLS_KEY"] = str(certificate), str(private)
        environment["PUNA_KEYS"] = str(folder / "keys.json")
        key = await output(program, "key", "create", "bench", "--allow", "all", "--local", environment=environment)
        return cls(certificate, key.split()[-1])


@dataclass(slots=True)
class Server:
    """A running server."""

    name: str
    url: str
    grpc: str
    """Address of its gRPC face, empty if it has none."""
    pid: int
    start_seconds: float
    """From its start to its first answer at /api/version."""
    session: aiohttp.ClientSession
    secrets: Secrets | None = None
    loaded: set[str] = field(default_factory=set)

    def channel(self) -> grpc.aio.Channel:
        """Open a channel to its gRPC face."""
        if self.secrets is None:
            return grpc.aio.insecure_channel(self.grpc)
        return grpc.aio.secure_channel(self.grpc, grpc.ssl_channel_credentials(self.secrets.certificate.read_bytes()))

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The metadata of each call. Call credentials would cost a thread for each call."""
        return (("authorization", f"Bearer {self.secrets.key}"),) if self.secrets else ()

    async def version(self) -> str:
        """Return the version that it tells."""
        async with self.session.get(f"{self.url}/api/version") as answer:
            return str((await answer.json())["version"])

    async def create(self, name: str, path: Path) -> None:
        """Make a model of a GGUF file."""
        with path.open("rb") as file:
            digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            async with self.session.post(f"{self.url}/api/blobs/{digest}", data=file) as answer:
                answer.raise_for_status()
        body = {"model": name, "files": {path.name: digest}, "stream": False, "template": "{{ .Prompt }}"}
        async with self.session.post(f"{self.url}/api/create", json=body) as answer:
            if answer.status != 200:
                raise RuntimeError(f"{self.name}: {await answer.text()}")


def free_port() -> int:
    """Return a port that was free a moment ago. Ollama cannot report which port it bound."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def output(*command: str, environment: dict[str, str] | None = None) -> str:
    """Return what a program writes to standard output; it must succeed."""
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, errors = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{command[0]}: {errors.decode()}")
    return said.decode()


@asynccontextmanager
async def running(name: str, command: str, folder: Path, *, secured: bool = False) -> AsyncGenerator[Server]:
    """Run a server. `{port}`, `{grpc}` and `{dir}` in the command are replaced; its own store lies under `folder`.

    secured: it is a Puna, and gets TLS and a key on both faces.
    """
    port, grpc = free_port(), free_port()
    store = folder / "models"
    store.mkdir(parents=True)
    words = [word.format(port=port, grpc=grpc, dir=folder) for word in shlex.split(command)]
    environment = os.environ | {
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "PUNA_GRPC_HOST": f"127.0.0.1:{grpc}",
        "OLLAMA_MODELS": str(store),
    }
    while words and "=" in words[0]:
        key, _, value = words.pop(0).partition("=")
        environment[key] = value
    secrets = await Secrets.make(words[0], folder, environment) if secured else None
    url = f"{'https' if secured else 'http'}://127.0.0.1:{port}"
    began = time.perf_counter()
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *words, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    trust = ssl.create_default_context(cafile=secrets.certificate) if secrets else True
    headers = {"Authorization": f"Bearer {secrets.key}"} if secrets else None
    connector = aiohttp.TCPConnector(limit=0, ssl=trust)
    timeout = aiohttp.ClientTimeout(600)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session:
        try:
            await _answering(session, url, process)
            took = time.perf_counter() - began
            yield Server(name, url, f"127.0.0.1:{grpc}", process.pid, took, session, secrets)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), 30)
            except TimeoutError:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()


async def _answering(session: aiohttp.ClientSession, url: str, process: asyncio.subprocess.Process) -> None:
    for _ in range(6000):
        if process.returncode is not None:
            raise RuntimeError(f"the server ended with status {process.returncode}")
        try:
            async with session.get(f"{url}/api/version") as answer:
                if answer.status == 200:
                    return
        except aiohttp.ClientError:
            await asyncio.sleep(0.01)
    raise RuntimeError("the server does not answer")


def tree(root: int) -> Iterator[int]:
    """Yield a process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting += children.get(pid, [])


def memory(root: int) -> int:
    """Return the bytes of a process tree: shared pages are counted once, split among those who share them (PSS)."""
    total = 0
    for pid in tree(root):
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except OSError:
            continue
    return total
