"""A real gRPC server that says what a test tells it to, and the bridge in front of it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from puna_client.v1 import (
    batch_pb2_grpc,
    chat_pb2_grpc,
    embed_pb2_grpc,
    files_pb2_grpc,
    generate_pb2_grpc,
    models_pb2_grpc,
    rank_pb2_grpc,
    server_pb2_grpc,
    tokenize_pb2_grpc,
)
from puna_rest.app import bridging


@dataclass(frozen=True)
class Fail:
    """An error to answer with."""

    code: grpc.StatusCode
    reason: str
    text: str


class Wait:
    """A place in an answer where the core thinks, until the call is cancelled."""


@dataclass
class ScriptedCore:
    """Answers each method with its script: messages in order, a Fail, a Wait."""

    scripts: dict[str, list[Any]] = field(default_factory=dict)
    requests: list[Any] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def until_cancelled(self) -> None:
        await asyncio.wait_for(self.cancelled.wait(), 5)

    def script(self, method: str, *answers: Any) -> None:
        self.scripts[method] = list(answers)

    async def play(self, method: str, request: Any, context: Any) -> AsyncIterator[Any]:
        if hasattr(request, "__aiter__"):
            self.requests.append([part async for part in request])
        else:
            self.requests.append(request)
        for each in self.scripts[method]:
            if isinstance(each, Fail):
                await self._abort(each, context)
            elif isinstance(each, Wait):
                try:
                    await asyncio.sleep(30)
                except asyncio.CancelledError:
                    self.cancelled.set()
                    raise
            else:
                yield each

    async def _abort(self, fail: Fail, context: Any) -> None:
        status = Status(code=fail.code.value[0], message=fail.text[:1024])
        status.details.add().Pack(ErrorInfo(reason=fail.reason, domain="puna"))
        trailers = [("grpc-status-details-bin", status.SerializeToString())]
        if dict(context.invocation_metadata()).get("puna-long-errors") == "1":
            trailers.append(("puna-error-bin", fail.text.encode()))
        await context.abort(fail.code, fail.text[:1024], tuple(trailers))


def _servicer(base: type, core: ScriptedCore, streaming: Iterable[str]) -> Any:
    def method(name: str) -> Any:
        async def stream(_self: Any, request: Any, context: Any) -> AsyncIterator[Any]:
            async for each in core.play(name, request, context):
                yield each

        async def unary(_self: Any, request: Any, context: Any) -> Any:
            found = [each async for each in core.play(name, request, context)]
            return found.pop()

        return stream if name in streaming else unary

    names = [name for name in vars(base) if not name.startswith("_")]
    return type(base.__name__, (base,), {name: method(name) for name in names})()


@asynccontextmanager
async def serving(core: ScriptedCore) -> AsyncGenerator[str]:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1), ("grpc.max_metadata_size", 1 << 22)])
    generate_pb2_grpc.add_GenerateServiceServicer_to_server(
        _servicer(generate_pb2_grpc.GenerateServiceServicer, core, ["StreamGenerate"]), server
    )
    chat_pb2_grpc.add_ChatServiceServicer_to_server(
        _servicer(chat_pb2_grpc.ChatServiceServicer, core, ["StreamChat"]), server
    )
    embed_pb2_grpc.add_EmbedServiceServicer_to_server(
        _servicer(embed_pb2_grpc.EmbedServiceServicer, core, ["StreamEmbed"]), server
    )
    models_pb2_grpc.add_ModelsServiceServicer_to_server(
        _servicer(models_pb2_grpc.ModelsServiceServicer, core, ["PullModel", "PushModel", "CreateModel"]), server
    )
    server_pb2_grpc.add_ServerServiceServicer_to_server(
        _servicer(server_pb2_grpc.ServerServiceServicer, core, ["WatchLoad"]), server
    )
    tokenize_pb2_grpc.add_TokenizeServiceServicer_to_server(
        _servicer(tokenize_pb2_grpc.TokenizeServiceServicer, core, []), server
    )
    rank_pb2_grpc.add_RankServiceServicer_to_server(_servicer(rank_pb2_grpc.RankServiceServicer, core, []), server)
    batch_pb2_grpc.add_BatchServiceServicer_to_server(
        _servicer(batch_pb2_grpc.BatchServiceServicer, core, ["StreamBatchResults"]), server
    )
    files_pb2_grpc.add_FilesServiceServicer_to_server(
        _servicer(files_pb2_grpc.FilesServiceServicer, core, ["StreamFile"]), server
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@pytest.fixture
async def core() -> ScriptedCore:
    return ScriptedCore()


@pytest.fixture
async def url(core: ScriptedCore) -> AsyncGenerator[str]:
    async with serving(core) as target, bridging(target, host="127.0.0.1", port=0) as address:
        yield address


@pytest.fixture
async def client(url: str) -> AsyncGenerator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(20)) as session:
        yield session


@pytest.fixture
def fail() -> type[Fail]:
    return Fail


@pytest.fixture
def wait() -> type[Wait]:
    return Wait
