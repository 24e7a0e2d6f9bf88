"""What went wrong, for HTTP: the only place that knows both the core's reasons and HTTP statuses."""

from dataclasses import dataclass
from typing import Final

import grpc
import grpc.aio
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

CANCELED: Final = 499
BY_REASON: Final = {
    "INVALID_REQUEST": 400,
    "MODEL_REQUIRED": 400,
    "TOO_LARGE": 413,
    "INVALID_MODEL_NAME": 400,
    "CAPABILITY_MISSING": 400,
    "CONTEXT_OVERFLOW": 400,
    "INPUT_TOO_LONG": 400,
    "ENGINE_REFUSED": 400,
    "UNSUPPORTED_CONSTRAINT": 400,
    "INVALID_DIGEST": 400,
    "DIGEST_MISMATCH": 400,
    "INVALID_CREATE": 400,
    "INVALID_TOKEN": 400,
    "CREATE_FAILED": 500,
    "MEDIA_UNSUPPORTED": 500,
    "TOOLS_REFUSED": 500,
    "OPTION_TYPE": 500,
    "OPTION_RANGE": 400,
    "INVALID_FORMAT": 500,
    "TEMPLATE_FAILED": 500,
    "TEMPLATE_LIMIT": 400,
    "UNKNOWN_RENDERER": 500,
    "NOT_FOUND": 404,
    "MODEL_NOT_FOUND": 404,
    "BLOB_NOT_FOUND": 404,
    "UNSUPPORTED_OPERATION": 501,
    "EMBEDDINGS_UNSUPPORTED": 501,
    "RANKING_UNSUPPORTED": 501,
    "CLOUD_DISABLED": 403,
    "NOT_LOCAL": 403,
    "REGISTRY_NOT_ALLOWED": 403,
    "QUEUE_FULL": 503,
    "CLIENT_STALLED": 408,
    "SERVER_ENDING": 503,
    "STORE_FAILED": 500,
    "TRANSFER_FAILED": 500,
    "BACKEND_NOT_FOUND": 500,
    "LOAD_FAILED": 500,
    "MODEL_DAMAGED": 500,
    "MODEL_UNREADABLE": 500,
    "BACKEND_CRASHED": 500,
    "BACKEND_FAILED": 500,
    "INTERNAL": 500,
}
BY_CODE: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.CANCELLED: CANCELED,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
# Errors of a request that is already being run. The reference writes its headers differently from then on.
WHILE_RUNNING: Final = frozenset(
    {
        "INVALID_FORMAT",
        "CONTEXT_OVERFLOW",
        "ENGINE_REFUSED",
        "MEDIA_UNSUPPORTED",
        "TOOLS_REFUSED",
        "UNSUPPORTED_CONSTRAINT",
        "BACKEND_CRASHED",
        "BACKEND_FAILED",
    }
)
TOO_DEEP: Final = "exceeded max depth"
"""The error for a value that is nested too deeply to be translated."""
UNEXPECTED: Final = "internal error, see the server's log"
"""The error for a failure that no handler expects."""
LONG_ERRORS: Final = ("puna-long-errors", "1")
"""Metadata of a call whose errors may be longer than a status message."""
_LONG_ERROR: Final = "puna-error-bin"
_DETAILS: Final = "grpc-status-details-bin"


class RestError(Exception):
    """A request that the bridge itself refuses."""

    def __init__(self, status: int, text: str, *, reason: str = "") -> None:
        """`reason` is given where the refusal shall look as if the core had said it."""
        super().__init__(text)
        self.status = status
        self.reason = reason


class TooLargeError(RestError):
    """A request whose body has more bytes than its route takes."""

    def __init__(self, most: int, setting: str = "") -> None:
        """`setting` is the environment variable that changes the limit, if there is one."""
        how = f"; {setting} changes the limit" if setting else ""
        super().__init__(413, f"the request's body is larger than {most} bytes{how}")


class BusyError(RestError):
    """A request that may succeed when it is sent again a little later."""

    def __init__(self, text: str) -> None:
        super().__init__(503, text)


class NativeError(RestError):
    """A request refused in the native shape on every route: for a cloud, or one whose body cannot be unpacked."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request failed."""

    status: int
    """HTTP status."""
    text: str
    reason: str = ""
    """Of the core; empty: the bridge refused the request."""
    early: bool = False
    """Whether the core says that the request was not being run yet."""

    @property
    def from_core(self) -> bool:
        """Whether the core said so."""
        return bool(self.reason)

    @property
    def while_running(self) -> bool:
        """Whether the request was being run already."""
        return self.reason in WHILE_RUNNING and not self.early


def failure(error: grpc.aio.AioRpcError | RestError) -> Failure:
    """Read an error."""
    error.__traceback__ = None  # its frames would keep the body until garbage is collected
    if isinstance(error, RestError):
        return Failure(error.status, str(error), error.reason)
    trailer = dict(error.trailing_metadata() or ())
    info = _info(trailer.get(_DETAILS, b""))
    reason = str(info.reason)
    status = BY_REASON.get(reason) or BY_CODE.get(error.code(), 500)
    whole = trailer.get(_LONG_ERROR, b"")
    text = whole.decode(errors="replace") if isinstance(whole, bytes) and whole else error.details() or ""
    return Failure(status, text, reason or error.code().name, early=info.metadata.get("early") == "1")


def _info(details: str | bytes) -> ErrorInfo:
    info = ErrorInfo()
    if isinstance(details, bytes):
        for detail in Status.FromString(details).details:
            if detail.Unpack(info):
                break
    return info
