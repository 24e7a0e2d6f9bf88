"""The requests of batches: checked when a batch is created, and run through the servicers as if they were calls."""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar, cast

import grpc
import grpc.aio
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from puna.auth.caller import Caller, current, enter
from puna.auth.errors import QuotaExceededError, UnauthenticatedError
from puna.auth.gate import Gate
from puna.backend.metadata import enter_request
from puna.batch.batch import Batch
from puna.batch.errors import BatchExpiredError
from puna.batch.files import StoredFile
from puna.batch.runner import LaterError, Outcome, Performer
from puna.errors import InvalidRequestError, PunaError, TooLargeError
from puna.limits import Limits
from puna.offload import offload_if_heavy, weight_of_message
from puna.request_log import choose_call_id
from puna.rpc import bounds
from puna.rpc.authorization import REQUEST_ID
from puna.rpc.chat import ChatServicer
from puna.rpc.embed import EmbedServicer
from puna.rpc.generate import GenerateServicer
from puna.rpc.inprocess import InProcessChannel
from puna.rpc.status import DETAILS, LONG_ERROR, LONG_ERRORS, item_error
from puna.serving.core import Serving
from puna_client.v1 import batch_pb2, chat_pb2_grpc, embed_pb2_grpc, error_pb2, generate_pb2_grpc

LONGEST_CUSTOM_ID: Final = 512
_LATER: Final = frozenset({"QUEUE_FULL", "SERVER_ENDING"})
"""Reasons that say nothing of the request: it is put back."""
Kept = TypeVar("Kept", Batch, StoredFile)
_METHODS: Final = {
    "generate": "/puna.v1.GenerateService/Generate",
    "chat": "/puna.v1.ChatService/Chat",
    "embed": "/puna.v1.EmbedService/Embed",
}


def check(item: batch_pb2.BatchItem, number: int, limits: Limits) -> None:
    """Raise InvalidRequestError or TooLargeError, which name the request, unless a batch may hold it."""
    if (size := item.ByteSize()) > (most := limits.max_batch_request_bytes):
        raise TooLargeError(
            f"request {number} has {size} bytes; PUNA_MAX_BATCH_REQUEST_BYTES allows {most}",
            limit=most,
            setting="PUNA_MAX_BATCH_REQUEST_BYTES",
        )
    where = f"request {number}"
    if not 0 < len(item.custom_id) <= LONGEST_CUSTOM_ID:
        text = f"{where}: the custom id must have 1 to {LONGEST_CUSTOM_ID} characters"
        raise InvalidRequestError(text, field="item.custom_id")
    where += f" ({item.custom_id!r})"
    kind = item.WhichOneof("request")
    if kind is None:
        raise InvalidRequestError(f"{where} is neither generate nor chat nor embed", field="item.request")
    if not getattr(item, kind).model:
        raise InvalidRequestError(f"{where}: model is required", field=f"item.{kind}.model")
    try:
        if kind == "generate":
            bounds.check_generate(item.generate, limits)
        elif kind == "chat":
            bounds.check_chat(item.chat, limits)
        else:
            bounds.check_embed(item.embed, limits)
    except InvalidRequestError as error:
        field = error.info.get("field")
        raise InvalidRequestError(f"{where}: {error}", field=f"item.{kind}.{field}" if field else "item") from None


def runs_alone(item: batch_pb2.BatchItem) -> bool:
    """Return whether a request runs as one call, which other requests cannot be seen to wait for."""
    return item.HasField("embed")


class ItemPerformer(Performer):
    """Runs requests of batches for their owners."""

    def __init__(self, serving: Serving, gate: Gate | None = None) -> None:
        """`gate` decides what an owner may do; without one every owner may do everything."""
        self._gate = gate
        channel = self._channel = InProcessChannel()
        server = cast("grpc.aio.Server", channel)
        generate_pb2_grpc.add_GenerateServiceServicer_to_server(GenerateServicer(serving), server)
        chat_pb2_grpc.add_ChatServiceServicer_to_server(ChatServicer(serving), server)
        embed_pb2_grpc.add_EmbedServiceServicer_to_server(EmbedServicer(serving), server)
        made = cast("grpc.aio.Channel", channel)
        # The stubs of the three services have more methods than one type could name.
        self._calls: dict[str, Callable[..., Awaitable[Any]]] = {
            "generate": generate_pb2_grpc.GenerateServiceStub(made).Generate,
            "chat": chat_pb2_grpc.ChatServiceStub(made).Chat,
            "embed": embed_pb2_grpc.EmbedServiceStub(made).Embed,
        }

    async def run(self, batch: Batch, number: int, request: bytes) -> Outcome:
        """Run a request as its owner. Cancellation stops it and waits for its end."""
        item = batch_pb2.BatchItem.FromString(request)
        kind = item.WhichOneof("request") or ""
        result = _result(item, number)
        try:
            caller = self._caller(batch, _METHODS[kind])
        except (UnauthenticatedError, QuotaExceededError):
            raise
        except PunaError as error:
            return _failed(result, item_error(error, whole_text=batch.config.long_errors))
        enter(replace(caller, batch=batch.id))
        enter_request({REQUEST_ID: choose_call_id("")})
        metadata = ((LONG_ERRORS, "1"),) if batch.config.long_errors else ()
        try:
            answer = await self._calls[kind](getattr(item, kind), metadata=metadata)
        except grpc.aio.AioRpcError as error:
            outcome = self._outcome_of(error, result)
            _count(caller)
            return outcome
        _count(caller)
        getattr(result, kind).CopyFrom(answer)
        result.complete_time.FromNanoseconds(time.time_ns())
        payload = await offload_if_heavy(weight_of_message(answer), result.SerializeToString)
        return Outcome(payload, failed=False)

    def _outcome_of(self, error: grpc.aio.AioRpcError, result: batch_pb2.StreamBatchResultsResponse) -> Outcome:
        found = dict(error.trailing_metadata() or ())
        details = found.get(DETAILS, b"")
        status = details if isinstance(details, bytes) else b""
        info = _info(status)
        reason = str(info.reason)
        if reason in _LATER:
            raise LaterError from None
        whole = found.get(LONG_ERROR, b"")
        text = whole.decode(errors="replace") if isinstance(whole, bytes) and whole else error.details() or ""
        code = error.code().value[0]
        made = error_pb2.ItemError(
            code=code, reason=reason or error.code().name, message=text, metadata=info.metadata, status=status
        )
        return _failed(result, made, again=error.code() is grpc.StatusCode.UNAVAILABLE)

    def check_owner(self, batch: Batch) -> None:
        """Raise UnauthenticatedError if the key of the owner is gone."""
        try:
            self._caller(batch, "")
        except UnauthenticatedError:
            raise
        except PunaError:
            pass  # decided again for each request

    def _caller(self, batch: Batch, method: str) -> Caller:
        if self._gate is None:
            return Caller(local=True, background=True)
        return self._gate.resume(batch.config.owner, method, local=batch.config.local)

    def expired(self, batch: Batch, number: int, request: bytes) -> bytes:
        """Return the error of a request that did not run in time."""
        return self._error_payload(batch, number, request, BatchExpiredError())

    def refused(self, batch: Batch, number: int, request: bytes, error: TooLargeError) -> bytes:
        """Return the error of a request whose answer cannot be stored."""
        return self._error_payload(batch, number, request, error)

    def _error_payload(self, batch: Batch, number: int, request: bytes, error: PunaError) -> bytes:
        result = _result(batch_pb2.BatchItem.FromString(request), number)
        return _failed(result, item_error(error, whole_text=batch.config.long_errors)).payload


def owner() -> tuple[str, bool]:
    """Return the id of the caller's key, empty if it has none, and whether the caller is local."""
    caller = current()
    return caller.key.id if caller.key is not None else "", caller.local


def behind(items: Sequence[Kept], after_id: str) -> Sequence[Kept]:
    """Return the items of a list behind the one with this id; all if the id is empty. Raises InvalidRequestError."""
    if not after_id:
        return items
    places = [place for place, each in enumerate(items) if each.id == after_id]
    if not places:
        raise InvalidRequestError("after_id names no item of the list", field="after_id")
    return items[places[0] + 1 :]


def _info(status: bytes) -> ErrorInfo:
    """Return the ErrorInfo in a serialized google.rpc.Status; an empty one if it has none."""
    info = ErrorInfo()
    for detail in Status.FromString(status).details:
        if detail.Unpack(info):
            break
    return info


def _count(caller: Caller) -> None:
    """Count a request that was not interrupted."""
    if caller.key is not None and caller.gate is not None:
        caller.gate.ledger.count(caller.key)


def _result(item: batch_pb2.BatchItem, number: int) -> batch_pb2.StreamBatchResultsResponse:
    return batch_pb2.StreamBatchResultsResponse(custom_id=item.custom_id, number=number, client_data=item.client_data)


def _failed(
    result: batch_pb2.StreamBatchResultsResponse, error: error_pb2.ItemError, *, again: bool = False
) -> Outcome:
    result.error.CopyFrom(error)
    result.complete_time.FromNanoseconds(time.time_ns())
    return Outcome(result.SerializeToString(), failed=True, again=again)
