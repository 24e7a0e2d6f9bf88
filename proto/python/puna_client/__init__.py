"""The client of Puna, an async gRPC model server.

`AsyncClient` and `Client` have the same methods, which `puna_client.operations` describes. `puna_client.v1` is the
generated code of the whole API.
"""

from puna_client import reasons
from puna_client.aio import AsyncClient, AsyncStream
from puna_client.answers import Answer, Delta, Embeddings, ToolCall
from puna_client.blocking import Client, Stream
from puna_client.channel import SERVICE_CONFIG, tls
from puna_client.errors import (
    DataLossError,
    DeadlineExceededError,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    PunaError,
    RequestCancelledError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
)
from puna_client.messages import system, tool, tool_result, user
from puna_client.reasons import *  # noqa: F403 - one class for each reason

__all__ = [
    "SERVICE_CONFIG",
    "Answer",
    "AsyncClient",
    "AsyncStream",
    "Client",
    "DataLossError",
    "DeadlineExceededError",
    "Delta",
    "Embeddings",
    "FailedPreconditionError",
    "InternalError",
    "InvalidArgumentError",
    "NotFoundError",
    "PermissionDeniedError",
    "PunaError",
    "RequestCancelledError",
    "ResourceExhaustedError",
    "Stream",
    "ToolCall",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "system",
    "tls",
    "tool",
    "tool_result",
    "user",
]
__all__ += reasons.__all__
