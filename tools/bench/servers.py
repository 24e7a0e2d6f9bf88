"""Starting the servers under test, and what their processes take."""

import asyncio
import contextlib
import functools
import hashlib
import json
import os
import shlex
import signal
import socket
import ssl
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import aiohttp
import grpc
from tools.bench.answers import Stream

from puna.gguf import reader


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
    """A running server that speaks Ollama's API."""

    name: str
    url: str
    grpc: str
    """Address of its gRPC face, empty if it has none."""
    pid: int
    """Of its process; 0 if somebody else started it."""
    start_seconds: float
    """From its start to its first answer."""
    session: aiohttp.ClientSession
    secrets: Secrets | None = None
    store: Path | None = None
    """The folder of blobs of a server that was started with a store of its own."""
    unloads: ClassVar[bool] = True
    """Whether it can be told to drop a model from memory."""

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes whose memory counts, with their descendants."""
        return (self.pid,) if self.pid else ()

    def serves(self, _model: str) -> bool:
        """Tell whether it has the model that a scenario asks for, once it was created."""
        return True

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
        digest = await asyncio.to_thread(digest_of, path)
        blob = f"{self.url}/api/blobs/{digest}"
        if self.store and not (kept := self.store / digest.replace(":", "-")).exists():
            # Both Ollama and Puna keep a blob under this name. A link saves sending gigabytes to each server.
            self.store.mkdir(exist_ok=True)
            with contextlib.suppress(OSError):  # another file system
                kept.hardlink_to(path)
        async with self.session.head(blob) as answer:
            known = answer.status == 200
        if not known:
            with path.open("rb") as file:
                async with self.session.post(blob, data=file) as answer:
                    answer.raise_for_status()
        body: dict[str, object] = {"model": name, "files": {path.name: digest}, "stream": False}
        if not reader.read(path).has("tokenizer.chat_template"):
            body["template"] = "{{ .Prompt }}"
        async with self.session.post(f"{self.url}/api/create", json=body) as answer:
            if answer.status != 200:
                raise RuntimeError(f"{self.name}: {await answer.text()}")

    async def unload(self, model: str) -> None:
        """Have a model leave the memory, and wait until it has."""
        async with self.session.post(f"{self.url}/api/generate", json={"model": model, "keep_alive": 0}) as answer:
            answer.raise_for_status()
        for _ in range(300):
            async with self.session.get(f"{self.url}/api/ps") as answer:
                loaded = (await answer.json())["models"]
            if model not in {each["name"].removesuffix(":latest") for each in loaded}:
                return
            await asyncio.sleep(0.1)
        raise RuntimeError(f"{self.name} does not unload {model}")

    async def generate(self, model: str, prompt: str, settings: dict[str, object]) -> Stream:
        """Stream one answer to a prompt. `settings` are Ollama's options."""
        body = {"model": model, "prompt": prompt, "raw": True, "options": settings}
        return await self._stream("/api/generate", body)

    async def chat(self, model: str, messages: Sequence[dict[str, str]], settings: dict[str, object]) -> Stream:
        """Stream one answer of a chat. Its text is left unread."""
        return await self._stream("/api/chat", {"model": model, "messages": messages, "options": settings})

    async def _stream(self, path: str, body: dict[str, object]) -> Stream:
        stream = Stream(time.perf_counter())
        async with self.session.post(self.url + path, json=body) as answer:
            if answer.status != 200:
                raise RuntimeError(f"{self.name}: {await answer.text()}")
            async for line in answer.content:
                stream.arrivals.append(time.perf_counter())
                stream.lines.append(line)
                if b'"done":true' in line:
                    counts = json.loads(line)
                    stream.tokens, stream.prompt_tokens = (
                        counts.get(name, 0) for name in ("eval_count", "prompt_eval_count")
                    )
        return stream

    async def embed(self, model: str, inputs: Sequence[str]) -> int:
        """Embed texts; return how many vectors came back."""
        body = {"model": model, "input": list(inputs)}
        async with self.session.post(f"{self.url}/api/embed", json=body) as answer:
            if answer.status != 200:
                raise RuntimeError(f"{self.name}: {await answer.text()}")
            return len((await answer.json())["embeddings"])


@functools.cache
def digest_of(path: Path) -> str:
    """Return the digest by which servers know a file."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


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


def filled(command: str, environment: dict[str, str], **values: object) -> tuple[list[str], dict[str, str]]:
    """Return the words of a command with `{names}` replaced, and the environment with the VAR=VALUE in front of it."""
    words = [word.format_map(values) for word in shlex.split(command)]
    while words and "=" in words[0]:
        key, _, value = words.pop(0).partition("=")
        environment = environment | {key: value}
    return words, environment


@asynccontextmanager
async def process(
    words: Sequence[str], environment: dict[str, str], log: Path
) -> AsyncGenerator[asyncio.subprocess.Process]:
    """Run a program in a session of its own; it ends with the block."""
    with log.open("ab") as file:
        started = await asyncio.create_subprocess_exec(
            *words, env=environment, stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(started.wait(), 30)
        except TimeoutError:
            os.killpg(started.pid, signal.SIGKILL)
            await started.wait()


@asynccontextmanager
async def running(name: str, command: str, folder: Path, *, secured: bool = False) -> AsyncGenerator[Server]:
    """Run a server. `{port}`, `{grpc}` and `{dir}` in the command are replaced; its own store lies under `folder`.

    secured: it is a Puna, and gets TLS and a key on both faces.
    """
    port, grpc = free_port(), free_port()
    store = folder / "models"
    store.mkdir(parents=True)
    environment = os.environ | {
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "PUNA_GRPC_HOST": f"127.0.0.1:{grpc}",
        "OLLAMA_MODELS": str(store),
    }
    words, environment = filled(command, environment, port=port, grpc=grpc, dir=folder)
    secrets = await Secrets.make(words[0], folder, environment) if secured else None
    url = f"{'https' if secured else 'http'}://127.0.0.1:{port}"
    trust = ssl.create_default_context(cafile=secrets.certificate) if secrets else True
    headers = {"Authorization": f"Bearer {secrets.key}"} if secrets else None
    began = time.perf_counter()
    async with process(words, environment, folder / "log") as started, client(trust, headers) as session:
        await answering(session, f"{url}/api/version", started)
        took = time.perf_counter() - began
        yield Server(name, url, f"127.0.0.1:{grpc}", started.pid, took, session, secrets, store / "blobs")


def client(trust: ssl.SSLContext | bool = True, headers: dict[str, str] | None = None) -> aiohttp.ClientSession:
    """Return a client that opens as many connections as a scenario has streams, and waits long."""
    connector = aiohttp.TCPConnector(limit=0, ssl=trust)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(600), headers=headers)


async def answering(session: aiohttp.ClientSession, url: str, started: asyncio.subprocess.Process) -> None:
    """Wait until a server that was just started answers with status 200."""
    for _ in range(6000):
        if started.returncode is not None:
            raise RuntimeError(f"the server ended with status {started.returncode}")
        try:
            async with session.get(url) as answer:
                if answer.status == 200:
                    return
        except aiohttp.ClientError:
            pass
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
