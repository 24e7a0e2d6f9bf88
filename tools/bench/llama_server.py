"""Servers that speak the API of llama.cpp's `llama-server`, as ik_llama.cpp's does too.

Such a process serves one model. So a server of this kind is a process for each model, which begins when the model is
asked for and ends when it is unloaded.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
from tools.bench.answers import Stream
from tools.bench.servers import Server, answering, client, filled, free_port, process

from puna.gguf import reader

_DATA = b"data: "
_DEFAULTS = {"top_k": 40, "top_p": 0.9, "min_p": 0.0, "repeat_penalty": 1.0}
"""Ollama's. llama-server has others."""
_NAMES = {"num_predict": "n_predict"}


@dataclass(slots=True)
class _Process:
    url: str
    pid: int
    ending: AsyncExitStack


@dataclass(slots=True, kw_only=True)
class LlamaServer(Server):
    """Processes of one command, one for each model."""

    command: str
    folder: Path
    files: dict[str, Path] = field(default_factory=dict)
    processes: dict[str, _Process] = field(default_factory=dict)
    starting: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that run."""
        return tuple(each.pid for each in self.processes.values())

    async def version(self) -> str:
        """Return the build that llama-server tells; ik_llama.cpp's tells none."""
        return str((await properties(self.session, await self._at(next(iter(self.files))))).get("build_info", ""))

    async def create(self, name: str, path: Path) -> None:
        """Note the file of a model."""
        self.files[name] = path

    async def unload(self, model: str) -> None:
        """End the process of a model."""
        if ended := self.processes.pop(model, None):
            await ended.ending.aclose()

    async def _at(self, model: str) -> str:
        """Return the URL of the process that serves a model."""
        async with self.starting:
            if model not in self.processes:
                self.processes[model] = await self._start(self.files[model])
        return self.processes[model].url

    async def _start(self, path: Path) -> _Process:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        command, environment = filled(self.command, dict(os.environ), port=port, dir=self.folder, model=path)
        if reader.read(path).has("pooling_type"):
            command.append("--embeddings")
        began = time.perf_counter()
        async with AsyncExitStack() as stack:
            started = await stack.enter_async_context(process(command, environment, self.folder / f"{path.stem}.log"))
            await answering(self.session, f"{url}/health", started)
            self.start_seconds = self.start_seconds or time.perf_counter() - began
            return _Process(url, started.pid, stack.pop_all())

    async def generate(self, model: str, prompt: str, settings: dict[str, object]) -> Stream:
        """Stream one answer to a prompt."""
        body = _DEFAULTS | {_NAMES.get(name, name): value for name, value in settings.items()}
        stream = await self._stream(f"{await self._at(model)}/completion", body | {"prompt": prompt, "stream": True})
        last = json.loads(stream.lines[-1])
        stream.tokens, stream.prompt_tokens = last.get("tokens_predicted", 0), last.get("tokens_evaluated", 0)
        return stream

    async def chat(self, model: str, messages: Sequence[dict[str, str]], settings: dict[str, object]) -> Stream:
        """Stream one answer of a chat."""
        body = _DEFAULTS | settings | {"max_tokens": settings["num_predict"], "messages": messages, "stream": True}
        body["stream_options"] = {"include_usage": True}
        stream = await self._stream(f"{await self._at(model)}/v1/chat/completions", body)
        counts = [json.loads(line)["usage"] for line in stream.lines if b'"usage":{' in line]
        if counts:
            stream.tokens, stream.prompt_tokens = counts[-1]["completion_tokens"], counts[-1]["prompt_tokens"]
        return stream

    async def _stream(self, url: str, body: dict[str, Any]) -> Stream:
        async with self._asked(url, body) as (began, answer):
            stream = Stream(began, key="content")
            async for line in answer.content:
                if line.startswith(_DATA) and not line.startswith(b"data: [DONE]"):
                    stream.arrivals.append(time.perf_counter())
                    stream.lines.append(line[len(_DATA) :])
        return stream

    async def embed(self, model: str, inputs: Sequence[str]) -> int:
        """Embed texts; return how many vectors came back."""
        url = f"{await self._at(model)}/v1/embeddings"
        async with self._asked(url, {"input": list(inputs), "model": model}) as (_, answer):
            return len((await answer.json())["data"])

    @asynccontextmanager
    async def _asked(self, url: str, body: dict[str, Any]) -> AsyncGenerator[tuple[float, aiohttp.ClientResponse]]:
        """Post a body; yield when that began, and the answer."""
        began = time.perf_counter()
        try:
            answer = await self.session.post(url, json=body)
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
            # These servers close a connection after some seconds or requests, perhaps just as it is used again.
            began = time.perf_counter()
            answer = await self.session.post(url, json=body)
        async with answer:
            if answer.status != 200:
                raise RuntimeError(f"{self.name}: {await answer.text()}")
            yield began, answer


@dataclass(slots=True, kw_only=True)
class FarLlamaServer(LlamaServer):
    """A process that somebody else started. It serves what it serves."""

    model: str
    """The name of the model's file without its suffix."""
    unloads: ClassVar[bool] = False

    def serves(self, model: str) -> bool:
        """Tell whether it has the model that a scenario asks for."""
        return model == self.model

    async def unload(self, model: str) -> None:
        """Nobody but the one who started it can end it."""
        raise RuntimeError(f"{self.name} cannot unload {model}")

    async def _at(self, _model: str) -> str:
        return self.url


async def properties(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """Return what such a server tells of itself."""
    async with session.get(f"{url}/props") as answer:
        answer.raise_for_status()
        return dict(await answer.json(content_type=None))


@asynccontextmanager
async def running_each(name: str, command: str, folder: Path) -> AsyncGenerator[LlamaServer]:
    """Run a server of this kind. `{model}` in its command is replaced by the file of each model in turn."""
    async with client() as session:
        server = LlamaServer(name, "", "", 0, 0.0, session, command=command, folder=folder)
        try:
            yield server
        finally:
            for model in list(server.processes):
                await server.unload(model)


@asynccontextmanager
async def far(name: str, url: str) -> AsyncGenerator[Server]:
    """Use a server that already runs: one that speaks Ollama's API, or llama-server's."""
    url = url.rstrip("/")
    async with client() as session:
        async with session.get(f"{url}/api/version") as answer:
            if answer.status == 200:
                yield Server(name, url, "", 0, 0.0, session)
                return
        model = Path((await properties(session, url))["model_path"]).stem
        yield FarLlamaServer(name, url, "", 0, 0.0, session, command="", folder=Path(), model=model)
