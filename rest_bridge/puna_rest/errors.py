"""Errors over HTTP. No other module knows both the core's error reasons and HTTP statuses."""

from dataclasses import dataclass
from typing import Final

import grpc
import grpc.aio
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from puna_client.v1 import error_pb2

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
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_EXPOSED": 403,
    "MODEL_NOT_ALLOWED": 403,
    "RATE_LIMITED": 429,
    "QUOTA_EXCEEDED": 429,
    "REGISTRY_NOT_ALLOWED": 403,
    "QUEUE_FULL": 503,
    "CLIENT_STALLED": 408,
    "BATCH_EXPIRED": 504,
    "SERVER_ENDING": 503,
    "STORE_FAILED": 500,
    "CONFIGURATION_INVALID": 500,
    "TRANSFER_FAILED": 500,
    "REMOTE_MODEL_NOT_FOUND": 500,
    "REGISTRY_UNAUTHORIZED": 500,
    "BACKEND_NOT_FOUND": 500,
    "LOAD_FAILED": 500,
    "NODE_UNAVAILABLE": 503,
    "MODEL_DAMAGED": 500,
    "MODEL_UNREADABLE": 500,
    "BACKEND_CRASHED": 500,
    "BACKEND_UNAVAILABLE": 503,
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
BY_NUMBER: Final = {code.value[0]: status for code, status in BY_CODE.items()}
_CODES: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
# Reasons of errors that occur once the request runs. Ollama writes other headers from then on.
WHILE_RUNNING: Final = frozenset(
    {
        "INVALID_FORMAT",
        "CONTEXT_OVERFLOW",
        "ENGINE_REFUSED",
        "MEDIA_UNSUPPORTED",
        "TOOLS_REFUSED",
        "UNSUPPORTED_CONSTRAINT",
        "BACKEND_CRASHED",
        "BACKEND_UNAVAILABLE",
        "BACKEND_FAILED",
    }
)
TOO_DEEP: Final = "exceeded max depth"
"""Text for a JSON value that is nested too deeply to be translated."""
UNEXPECTED: Final = "internal error, see the server's log"
"""Text for an exception that no handler expects. The log has the place in the code."""
LONG_ERRORS: Final = ("puna-long-errors", "1")
"""Metadata that asks the core for whole error texts, beyond the length of a status message."""
_LONG_ERROR: Final = "puna-error-bin"
_DETAILS: Final = "grpc-status-details-bin"


class RestError(Exception):
    """A request that the bridge refuses."""

    def __init__(self, status: int, text: str, *, reason: str = "") -> None:
        """`reason` makes the error look like one of the core's."""
        super().__init__(text)
        self.status = status
        self.reason = reason


class TooLargeError(RestError):
    """The body exceeds the limit of its route."""

    def __init__(self, most: int, setting: str = "") -> None:
        """`most`: the limit in bytes. `setting`: the environment variable that sets it, if there is one."""
        how = f"; {setting} changes the limit" if setting else ""
        super().__init__(413, f"the request's body is larger than {most} bytes{how}")


class BusyError(RestError):
    """The server is busy. The same request may succeed later."""

    def __init__(self, text: str) -> None:
        super().__init__(503, text)


class NativeError(RestError):
    """An error with the shape of /api/* on every route: a cloud's model, or a body that cannot be decompressed."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The status and text of a failed request."""

    status: int
    """HTTP status."""
    text: str
    reason: str = ""
    """The core's ErrorInfo.reason; empty if the bridge refused the request."""
    early: bool = False
    """Whether the core reports that the request was not running yet."""
    field: str = ""
    """Path of the wrong field of the core's request; empty: unknown."""
    retry_after: int = 0
    """Seconds after which the request may succeed; 0: unknown."""

    @property
    def from_core(self) -> bool:
        """Whether the error is the core's."""
        return bool(self.reason)

    @property
    def while_running(self) -> bool:
        """Whether the request was running, which changes the headers of Ollama's error responses."""
        return self.reason in WHILE_RUNNING and not self.early


def failure(error: grpc.aio.AioRpcError | RestError) -> Failure:
    """Return the failure that an exception stands for."""
    error.__traceback__ = None  # the frames hold the request's body, and would until the next garbage collection
    if isinstance(error, RestError):
        return Failure(error.status, str(error), error.reason)
    trailer = dict(error.trailing_metadata() or ())
    info, retry, bad = _info(trailer.get(_DETAILS, b""))
    reason = str(info.reason)
    # The reason first: one gRPC code stands for several HTTP statuses.
    status = BY_REASON.get(reason) or BY_CODE.get(error.code(), 500)
    # A status message is cut at 1 KiB; the trailer has the text that clients of Ollama read.
    whole = trailer.get(_LONG_ERROR, b"")
    text = whole.decode(errors="replace") if isinstance(whole, bytes) and whole else error.details() or ""
    early, seconds = info.metadata.get("early") == "1", retry.retry_delay.seconds
    field = next((each.field for each in bad.field_violations), "")
    return Failure(status, text, reason or error.code().name, early=early, field=field, retry_after=seconds)


def item_failure(error: error_pb2.ItemError) -> Failure:
    """Return the failure that the error of an item stands for: that of a call with this item alone."""
    info, retry, _ = _info(error.status)
    status = BY_REASON.get(error.reason) or BY_NUMBER.get(error.code, 500)
    early, seconds = info.metadata.get("early") == "1", retry.retry_delay.seconds
    return Failure(status, error.message, error.reason, early=early, retry_after=seconds)


def grpc_code(failed: Failure) -> int:
    """Return the number of the gRPC status code for a request that the bridge refuses."""
    return int(_CODES.get(failed.status, grpc.StatusCode.INTERNAL).value[0])


def _info(details: str | bytes) -> tuple[ErrorInfo, RetryInfo, BadRequest]:
    info, retry, bad = ErrorInfo(), RetryInfo(), BadRequest()
    if isinstance(details, bytes):
        for detail in Status.FromString(details).details:
            # Each message is unpacked from the detail of its own type.
            if not detail.Unpack(info) and not detail.Unpack(retry):
                detail.Unpack(bad)
    return info, retry, bad
