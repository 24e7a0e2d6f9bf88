"""Translation of errors to gRPC status codes and details. No other module knows both."""

import math
from collections.abc import Iterator
from typing import Final

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, ResourceInfo, RetryInfo
from google.rpc.status_pb2 import Status

from puna.auth.errors import PermissionDeniedError, RateLimitedError, UnauthenticatedError
from puna.batch.errors import BatchExpiredError
from puna.configuration import ConfigurationInvalidError
from puna.errors import (
    BackendCrashedError,
    BackendFailedError,
    BackendNotFoundError,
    BackendUnavailableError,
    BlobNotFoundError,
    CapabilityMissingError,
    ClientStalledError,
    CloudDisabledError,
    CreateFailedError,
    DamagedModelError,
    InvalidFormatError,
    InvalidRequestError,
    LoadFailedError,
    ModelNotFoundError,
    NotFoundError,
    NotLocalError,
    OptionTypeError,
    PunaError,
    QueueFullError,
    RegistryNotAllowedError,
    ServerEndingError,
    StoreFailedError,
    TemplateError,
    TooLargeError,
    TransferError,
    UnknownRendererError,
    UnsupportedOperationError,
)
from puna.gguf.reader import GGUFError
from puna.go.json import replace_lone_surrogates
from puna.models.registry.failures import RegistryUnauthorizedError, RemoteModelNotFoundError
from puna.models.stored import UnreadableModelError
from puna.request_log import call_id
from puna.rpc.wording import variables, words
from puna.runtime.errors import NodeError
from puna_client.v1 import error_pb2

DOMAIN: Final = "puna"
LONGEST_TEXT: Final = 1024
"""Bytes of an error's text in a status message. All trailers together must stay below the client's limit, 8 KiB."""
LONGEST_VARIABLE: Final = 256
"""Characters of one value of ErrorInfo.metadata."""
LONG_ERRORS: Final = "puna-long-errors"
"""Request metadata. A client that sends "1" gets whole error texts in the trailer LONG_ERROR."""
LONG_ERROR: Final = "puna-error-bin"
DETAILS: Final = "grpc-status-details-bin"
PUSHBACK: Final = "grpc-retry-pushback-ms"
"""Trailer that tells a retry policy of a client when to repeat the call. A negative number: never."""
LONGEST_PUSHBACK: Final = 30.0
"""Seconds up to which a client waits to repeat a call. Its caller should hear of longer waits, as of a daily quota."""

_CODES: Final[dict[type[PunaError], grpc.StatusCode]] = {
    InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    CapabilityMissingError: grpc.StatusCode.FAILED_PRECONDITION,
    OptionTypeError: grpc.StatusCode.INVALID_ARGUMENT,
    InvalidFormatError: grpc.StatusCode.INVALID_ARGUMENT,
    TemplateError: grpc.StatusCode.INVALID_ARGUMENT,
    UnknownRendererError: grpc.StatusCode.FAILED_PRECONDITION,
    NotFoundError: grpc.StatusCode.NOT_FOUND,
    UnsupportedOperationError: grpc.StatusCode.UNIMPLEMENTED,
    ConfigurationInvalidError: grpc.StatusCode.FAILED_PRECONDITION,
    CreateFailedError: grpc.StatusCode.FAILED_PRECONDITION,
    NotLocalError: grpc.StatusCode.PERMISSION_DENIED,
    RegistryNotAllowedError: grpc.StatusCode.PERMISSION_DENIED,
    CloudDisabledError: grpc.StatusCode.PERMISSION_DENIED,
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDeniedError: grpc.StatusCode.PERMISSION_DENIED,
    RateLimitedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    QueueFullError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    TooLargeError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ClientStalledError: grpc.StatusCode.DEADLINE_EXCEEDED,
    BatchExpiredError: grpc.StatusCode.DEADLINE_EXCEEDED,
    ServerEndingError: grpc.StatusCode.UNAVAILABLE,
    StoreFailedError: grpc.StatusCode.FAILED_PRECONDITION,
    RemoteModelNotFoundError: grpc.StatusCode.NOT_FOUND,
    RegistryUnauthorizedError: grpc.StatusCode.UNAUTHENTICATED,
    TransferError: grpc.StatusCode.UNAVAILABLE,
    BackendNotFoundError: grpc.StatusCode.FAILED_PRECONDITION,
    DamagedModelError: grpc.StatusCode.DATA_LOSS,
    NodeError: grpc.StatusCode.UNAVAILABLE,
    LoadFailedError: grpc.StatusCode.FAILED_PRECONDITION,
    UnreadableModelError: grpc.StatusCode.FAILED_PRECONDITION,
    GGUFError: grpc.StatusCode.FAILED_PRECONDITION,
    BackendCrashedError: grpc.StatusCode.UNAVAILABLE,
    BackendUnavailableError: grpc.StatusCode.UNAVAILABLE,
    BackendFailedError: grpc.StatusCode.INTERNAL,
    PunaError: grpc.StatusCode.INTERNAL,
}


def code_of(error: PunaError) -> grpc.StatusCode:
    """Return the status code of an error's class or of its nearest base class in the table."""
    # The table ends with PunaError, so a new class of error always has a code.
    return next(_CODES[kind] for kind in type(error).__mro__ if kind in _CODES)


def short(text: str) -> str:
    """Return a text cut to LONGEST_TEXT bytes, with an ellipsis if anything is cut."""
    raw = text.encode("utf-8", "replace")
    if len(raw) <= LONGEST_TEXT:
        return raw.decode()
    # The ellipsis has three bytes. The cut may fall inside a character, which is dropped.
    return raw[: LONGEST_TEXT - 3].decode(errors="ignore") + "…"


def status_of(error: PunaError) -> Status:
    """Return the status of an error with all of its details."""
    status = Status(code=code_of(error).value[0], message=short(words(error)))
    for detail in _details(error):
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def item_error(error: PunaError, *, whole_text: bool = False) -> error_pb2.ItemError:
    """Return the error of one item of a stream or batch. `whole_text`: whether its text is Ollama's, of any length."""
    status, info = status_of(error), ErrorInfo()
    status.details[0].Unpack(info)
    return error_pb2.ItemError(
        code=status.code,
        reason=error.reason,
        message=replace_lone_surrogates(str(error)) if whole_text else status.message,
        metadata=info.metadata,
        status=status.SerializeToString(),
    )


def trailers(error: PunaError, *, whole_text: bool) -> tuple[tuple[str, str | bytes], ...]:
    """Return the trailing metadata: a google.rpc.Status, when to retry, and Ollama's text if `whole_text` is set."""
    status = status_of(error)
    found: tuple[tuple[str, str | bytes], ...] = ((DETAILS, status.SerializeToString()),)
    if pushback := _pushback(error):
        found += ((PUSHBACK, pushback),)
    if whole_text:
        found += ((LONG_ERROR, str(error).encode("utf-8", "replace")),)
    return found


def _details(error: PunaError) -> Iterator[Message]:
    told = {name: value[:LONGEST_VARIABLE] for name, value in variables(error).items()}
    field = told.pop("field", "")
    # Ollama answers some errors with another HTTP status before the request runs. The bridge cannot know that by
    # itself.
    early = {"early": "1"} if error.early else {}
    request = {"request_id": id_} if (id_ := call_id()) else {}
    yield ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=told | early | request)
    if field:
        violation = BadRequest.FieldViolation(field=field, description=short(words(error)), reason=error.reason)
        yield BadRequest(field_violations=[violation])
    if isinstance(error, ModelNotFoundError):
        yield ResourceInfo(resource_type="model", resource_name=told.get("model", ""), description=words(error))
    elif isinstance(error, BlobNotFoundError):
        yield ResourceInfo(resource_type="blob", resource_name=told.get("digest", ""), description=words(error))
    if isinstance(error, RateLimitedError):
        yield QuotaFailure(violations=[QuotaFailure.Violation(subject="api key", description=words(error))])
    if wait := _wait(error):
        yield RetryInfo(retry_delay=Duration(seconds=math.ceil(wait)))


def _wait(error: PunaError) -> float:
    """Return after how many seconds the same request may succeed. 0: unknown, or it never will."""
    return 1.0 if isinstance(error, QueueFullError) else getattr(error, "retry_seconds", 0.0)


def _pushback(error: PunaError) -> str:
    """Return the value of the trailer PUSHBACK. Empty: the client's own policy decides."""
    wait = _wait(error)
    if 0 < wait <= LONGEST_PUSHBACK:
        return str(math.ceil(wait) * 1000)
    # RESOURCE_EXHAUSTED stands for full queues, on which clients retry, and also for requests that are too large.
    return "-1" if wait or code_of(error) is grpc.StatusCode.RESOURCE_EXHAUSTED else ""
