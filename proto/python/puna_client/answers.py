"""The results of calls."""

import json
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from puna_client.v1.message_pb2 import ChatMessage
from puna_client.v1.usage_pb2 import Finish, Progress, TokenLogprob, Usage

OnProgress: TypeAlias = Callable[[Progress], object]
"""A function that takes the progress of a request before its first delta."""


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool."""

    name: str
    arguments: dict[str, Any]
    id: str = ""


@dataclass(frozen=True)
class Delta:
    """The output of one decoding step. Most deltas have one of the fields."""

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass
class Answer:
    """A whole answer."""

    text: str = ""
    thinking: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    message: ChatMessage = field(default_factory=lambda: ChatMessage(role="assistant"))
    """The answer as a message, to continue the conversation with."""
    finish: Finish = field(default_factory=Finish)
    """Reason, token counts and durations. Empty until the stream has ended."""

    def json(self) -> Any:  # noqa: ANN401 - any JSON value
        """Return the value of a text that is JSON, as that of a request with a schema. ValueError: it is none."""
        return json.loads(self.text)


@dataclass
class Embeddings:
    """Vectors in the order of the inputs. Each is an array of 32-bit floats, which numpy.frombuffer takes as it is."""

    vectors: list["array[float]"] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
