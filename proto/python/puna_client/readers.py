"""Readers collect what calls return from the messages of their streams.

A reader turns each message into items for the caller's loop, and all of them into one result. It knows nothing of the
network, so both clients share it.
"""

import json
import sys
from array import array
from collections.abc import Iterable
from typing import Any, Final, Protocol, TypeVar

from puna_client.answers import Answer, Delta, Embeddings, OnProgress, ToolCall
from puna_client.interop.v1.health_pb2 import HealthCheckResponse
from puna_client.v1.chat_pb2 import ChatDelta, StreamChatResponse
from puna_client.v1.embed_pb2 import StreamVectorsResponse, Vector
from puna_client.v1.generate_pb2 import GenerateDelta, StreamGenerateResponse
from puna_client.v1.message_pb2 import ToolCall as WireToolCall
from puna_client.v1.models_pb2 import JobProgress, Model, PullModelResponse

Item = TypeVar("Item", covariant=True)
Result = TypeVar("Result", covariant=True)
_SERVING: Final = 1
"""The status of grpc.health.v1."""


class Reader(Protocol[Item, Result]):
    """Reads the messages of one stream."""

    def read(self, message: Any, /) -> Iterable[Item]:  # noqa: ANN401 - each reader takes its own message
        """Take the next message; return its items."""

    def result(self) -> Result:
        """Return the result of all messages so far."""


class AnswerReader:
    """Reads StreamChat and StreamGenerate."""

    def __init__(self, on_progress: OnProgress | None) -> None:
        self._on_progress = on_progress
        self._answer = Answer()

    def read(self, message: StreamChatResponse | StreamGenerateResponse) -> list[Delta]:
        """Take the next message; return its deltas."""
        if self._on_progress is not None and message.HasField("progress"):
            self._on_progress(message.progress)
        if message.HasField("done"):
            self._answer.finish = message.done.finish
        return [self._delta(each) for each in message.deltas]

    def _delta(self, delta: ChatDelta | GenerateDelta) -> Delta:
        text = delta.content if isinstance(delta, ChatDelta) else delta.text
        found = Delta(text, delta.thinking, tuple(map(_tool_call, delta.tool_calls)), tuple(delta.logprobs))
        answer = self._answer
        answer.text += found.text
        answer.thinking += found.thinking
        answer.tool_calls += found.tool_calls
        answer.logprobs += found.logprobs
        answer.message.tool_calls.extend(delta.tool_calls)
        return found

    def result(self) -> Answer:
        """Return the answer."""
        self._answer.message.content, self._answer.message.thinking = self._answer.text, self._answer.thinking
        return self._answer


def _tool_call(call: WireToolCall) -> ToolCall:
    return ToolCall(call.name, json.loads(call.arguments_json or "{}"), call.id)


class EmbeddingsReader:
    """Reads StreamVectors."""

    def __init__(self) -> None:
        self._embeddings = Embeddings()

    def read(self, message: StreamVectorsResponse) -> list["array[float]"]:
        """Take the next message; return its vectors."""
        found = [_vector(each) for each in message.part.vectors]
        self._embeddings.vectors += found
        self._embeddings.usage.MergeFrom(message.part.usage)
        return found

    def result(self) -> Embeddings:
        """Return all vectors."""
        return self._embeddings


def _vector(vector: Vector) -> "array[float]":
    found = array("f", vector.packed)
    if sys.byteorder == "big":  # the wire is little-endian
        found.byteswap()
    return found


class PullReader:
    """Reads PullModel."""

    def __init__(self) -> None:
        self._model = Model()

    def read(self, message: PullModelResponse) -> list[JobProgress]:
        """Take the next message; return its progress."""
        if message.HasField("model"):
            self._model = message.model
            return []
        return [message.progress]

    def result(self) -> Model:
        """Return the model."""
        return self._model


class HealthReader:
    """Reads Watch of grpc.health.v1."""

    def __init__(self) -> None:
        self._serving = False

    def read(self, message: HealthCheckResponse) -> list[bool]:
        """Take the next message; return whether the server takes requests."""
        self._serving = message.status == _SERVING
        return [self._serving]

    def result(self) -> bool:
        """Return the last status."""
        return self._serving
