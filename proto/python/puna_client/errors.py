"""Failed calls as exceptions.

Each reason of the server has a class, `ModelNotFoundError` for MODEL_NOT_FOUND, in `puna_client.reasons`. Its base is
the class of its gRPC status, and that of a reason which this version does not know. `except NotFoundError` catches all
reasons of the status NOT_FOUND.
"""

from collections.abc import Mapping
from typing import ClassVar, Final, TypeVar

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError, Message

from puna_client.interop.v1.status_pb2 import BadRequest, ErrorInfo, RetryInfo, Status

_DETAILS: Final = "grpc-status-details-bin"
_DOMAIN: Final = "puna"
_Detail = TypeVar("_Detail", bound=Message)


class PunaError(Exception):
    """A call failed. The text of the exception is the server's."""

    by_reason: ClassVar[dict[str, type["PunaError"]]] = {}
    """The class of each reason."""

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN
    reason: str = ""
    """The reason in the server's catalogue. Empty: the error is of gRPC, for example because no server answers."""
    metadata: Mapping[str, str] = {}
    """The variables of the text, such as `model`, `limit` and `prompt_tokens`, and `request_id`."""
    field: str = ""
    """The path of the request's field that is wrong. Empty: no single field is."""
    retry_delay: float | None = None
    """Seconds after which the same request may succeed. None: unknown, or it never will."""

    def __init_subclass__(cls, *, reason: str = "") -> None:
        """Make the class that of a reason."""
        if reason:
            cls.reason = reason
            cls.by_reason[reason] = cls


class InvalidArgumentError(PunaError):
    """The request cannot be served as it is."""


class FailedPreconditionError(PunaError):
    """The state of the server, its store or its backends forbids the request."""


class NotFoundError(PunaError, reason="NOT_FOUND"):
    """A named object does not exist."""


class PermissionDeniedError(PunaError, reason="PERMISSION_DENIED"):
    """The caller may not do this."""


class UnauthenticatedError(PunaError, reason="UNAUTHENTICATED"):
    """Credentials are missing or wrong."""


class ResourceExhaustedError(PunaError):
    """A limit is exceeded. `retry_delay` says whether that passes."""


class UnavailableError(PunaError):
    """The server, a backend or a registry cannot be used now. Retrying may help."""


class UnimplementedError(PunaError):
    """The server, the model or its backend cannot do this."""


class DeadlineExceededError(PunaError):
    """The timeout of the call has passed."""


class RequestCancelledError(PunaError):
    """The request was cancelled: CancelRequests named it, or this program left a stream that it goes on to read."""


class DataLossError(PunaError):
    """A file of the model is missing or changed."""


class InternalError(PunaError, reason="INTERNAL"):
    """A fault of the server or of a backend."""


_BY_CODE: Final[dict[grpc.StatusCode, type[PunaError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.UNIMPLEMENTED: UnimplementedError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.CANCELLED: RequestCancelledError,
    grpc.StatusCode.DATA_LOSS: DataLossError,
    grpc.StatusCode.INTERNAL: InternalError,
}


def from_rpc(error: grpc.RpcError) -> PunaError:
    """Return the exception for a failed call of `grpc` or `grpc.aio`."""
    # Every RpcError of a call has the methods of grpc.Call; the type does not say so.
    assert isinstance(error, grpc.Call | grpc.aio.AioRpcError)
    status = Status()
    for name, value in error.trailing_metadata() or ():
        if name == _DETAILS and isinstance(value, bytes):
            try:
                status.ParseFromString(value)
            except DecodeError:  # of another server, or damaged on the way
                break
    info = _found(status, ErrorInfo)
    reason = info.reason if info.domain == _DOMAIN else ""
    kind = PunaError.by_reason.get(reason) or _BY_CODE.get(error.code(), PunaError)
    made = kind(error.details() or error.code().name)
    made.code, made.reason, made.metadata = error.code(), reason, dict(info.metadata)
    for violation in _found(status, BadRequest).field_violations[:1]:
        made.field = violation.field
    if delay := _found(status, RetryInfo).retry_delay.ToNanoseconds():
        made.retry_delay = delay / 1e9
    return made


def _found(status: Status, kind: type[_Detail]) -> _Detail:
    """Return the detail of a kind; empty if there is none."""
    found = kind()
    name = kind.DESCRIPTOR.name
    for each in status.details:
        if _name(each) == f"google.rpc.{name}":
            found.ParseFromString(each.value)
            break
    return found


def _name(packed: Any) -> str:
    return packed.type_url.rpartition("/")[2]
