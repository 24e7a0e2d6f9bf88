"""The clients: streams that last until something is killed, and short requests that never stop."""

import asyncio
import json
import random
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Final

import aiohttp
import grpc.aio

from puna_client.v1 import generate_pb2, generate_pb2_grpc

PIECES: Final = 240
PAUSE: Final = 0.25
"""Seconds between two pieces of a stream."""
PROMPT: Final = " ".join(f"{number}. @wait {PAUSE}" for number in range(PIECES))
"""A prompt of the scripted backend, whose answer takes a minute. REST would cut off a longer one."""
SHORT: Final = "a @wait 0.05 b"
CHANNEL: Final = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 300))
RETRY_SECONDS: Final = 0.1


class AnswerError(Exception):
    """An error that a client got in place of an answer, or of its rest. The text has the status."""


@dataclass(frozen=True, slots=True)
class Ways:
    """The two faces of a server."""

    url: str
    session: aiohttp.ClientSession
    channel: grpc.aio.Channel


async def rest(ways: Ways, model: str, prompt: str) -> AsyncGenerator[str]:
    """Stream an answer over REST. Raises AnswerError."""
    body = {"model": model, "prompt": prompt, "raw": True}
    try:
        async with ways.session.post(f"{ways.url}/api/generate", json=body) as answer:
            if answer.status != 200:
                raise AnswerError(f"REST {answer.status}: {json.loads(await answer.text())['error']}")
            done = False
            async for line in answer.content:
                message = json.loads(line)
                if "error" in message:
                    raise AnswerError(f"REST line: {message['error']}")
                done = message["done"]
                yield message["response"]
            if not done:
                raise AnswerError("REST connection: the answer has no end")
    except (aiohttp.ClientError, OSError) as error:
        raise AnswerError(f"REST connection: {error or type(error).__name__}") from error


async def rpc(ways: Ways, model: str, prompt: str) -> AsyncGenerator[str]:
    """Stream an answer over gRPC. Raises AnswerError."""
    request = generate_pb2.GenerateRequest(model=model, text=prompt, raw=True)
    try:
        async for message in generate_pb2_grpc.GenerateServiceStub(ways.channel).StreamGenerate(request):
            for delta in message.deltas:
                yield delta.text
    except grpc.aio.AioRpcError as error:
        raise AnswerError(f"gRPC {error.code().name}: {error.details()}") from error


FACES: Final = (rest, rpc)


class Stream:
    """A long answer, which a task reads."""

    def __init__(self, ways: Ways, model: str, face: int) -> None:
        """`face` is an index of FACES."""
        self.model = model
        self.name = f"{FACES[face].__name__} stream of {model}"
        self.text = ""
        self.last_at = 0.0
        """When the last piece came, by the monotonic clock; 0: none has come."""
        self.ended_at = 0.0
        self.error = ""
        self.began_at = time.monotonic()
        self._task = asyncio.create_task(self._read(FACES[face](ways, model, PROMPT)))

    async def _read(self, pieces: AsyncGenerator[str]) -> None:
        try:
            async for piece in pieces:
                self.text += piece
                self.last_at = time.monotonic()
        except AnswerError as error:
            self.error = str(error)
        self.ended_at = time.monotonic()

    @property
    def exact(self) -> bool:
        """Whether no piece is missing or doubled."""
        numbers = self.text.split(".")[:-1]
        return numbers == [str(each) for each in range(len(numbers))]

    async def hang_up(self) -> None:
        """Leave, as a client does."""
        self._task.cancel()
        await asyncio.wait({self._task})


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a short request. Times are by the monotonic clock."""

    name: str
    began_at: float
    ended_at: float
    text: str
    error: str


@dataclass(slots=True)
class Prober:
    """Sends one short request after the other, to models at random."""

    ways: Ways
    models: Sequence[str]
    draw: random.Random
    outcomes: list[Outcome] = field(default_factory=list)
    waiting_since: float = 0.0

    async def probe(self) -> None:
        """Run until it is cancelled."""
        while True:
            face, model = self.draw.randrange(len(FACES)), self.draw.choice(self.models)
            self.waiting_since = time.monotonic()
            outcome = await ask(self.ways, model, face)
            self.outcomes.append(outcome)
            await asyncio.sleep(RETRY_SECONDS)


async def ask(ways: Ways, model: str, face: int) -> Outcome:
    """Send one short request."""
    began_at, text, failure = time.monotonic(), "", ""
    try:
        async for piece in FACES[face](ways, model, SHORT):
            text += piece
    except AnswerError as error:
        failure = str(error)
    return Outcome(f"{FACES[face].__name__} request to {model}", began_at, time.monotonic(), text, failure)
