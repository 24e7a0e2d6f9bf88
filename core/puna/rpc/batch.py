"""BatchService."""

from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from puna.batch import batch as batches
from puna.batch.batch import Batch
from puna.batch.core import Batches
from puna.batch.records import Record
from puna.batch.writer import BatchWriter
from puna.blocking import in_thread
from puna.errors import InvalidRequestError
from puna.offload import offload_if_heavy, weight_of_message
from puna.rpc import batch_items
from puna.rpc.error_boundary import Context, streaming, unary
from puna.rpc.pages import page
from puna.rpc.status import LONG_ERRORS
from puna_client.v1 import batch_pb2, batch_pb2_grpc

WINDOW_SECONDS: Final = 86_400.0
"""Completion window of a batch that sets none."""
FOLLOW_SECONDS: Final = 10.0
"""Seconds after which a stream that follows a batch looks at it without having been told of news."""
GROUP_BYTES: Final = 1 << 18
"""Bytes of requests that are written at once."""
MOST_PAIRS: Final = 16
LONGEST_KEY: Final = 64
LONGEST_VALUE: Final = 512
MOST_DATA: Final = 1 << 16
"""Bytes of the client's data of a batch."""

_STATES: Final = {
    batches.QUEUED: batch_pb2.BATCH_STATE_QUEUED,
    batches.RUNNING: batch_pb2.BATCH_STATE_RUNNING,
    batches.DONE: batch_pb2.BATCH_STATE_DONE,
    batches.CANCELLED: batch_pb2.BATCH_STATE_CANCELLED,
    batches.EXPIRED: batch_pb2.BATCH_STATE_EXPIRED,
    batches.REVOKED: batch_pb2.BATCH_STATE_REVOKED,
}
_KINDS: Final[dict[int, bool | None]] = {
    batch_pb2.BATCH_RESULT_KIND_ANSWERS: False,
    batch_pb2.BATCH_RESULT_KIND_ERRORS: True,
}
"""Whether results of a kind are errors. None, for other kinds: either."""


class BatchServicer(batch_pb2_grpc.BatchServiceServicer):
    """Serves BatchService."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    @unary
    async def CreateBatch(
        self, request: AsyncIterator[batch_pb2.CreateBatchRequest], context: Context
    ) -> batch_pb2.CreateBatchResponse:
        """Store a batch. A call that fails or is cancelled leaves nothing behind."""
        metadata = dict(context.invocation_metadata() or ())
        first = await anext(request, None)
        config = first.config if first is not None and first.HasField("config") else batch_pb2.BatchConfig()
        _check_config(config)
        owner, local = batch_items.owner()
        window = config.completion_window.ToNanoseconds() / 1e9 if config.HasField("completion_window") else None
        with ExitStack() as stack:
            begin = partial(
                self._batches.store.writer,
                owner,
                local=local,
                long_errors=metadata.get(LONG_ERRORS) == "1",
                window=WINDOW_SECONDS if window is None else window,
                metadata=config.metadata,
                data=config.client_data,
            )
            # The stack is entered in the thread, so that a writer is closed even if this call is cancelled meanwhile.
            writer = await in_thread(lambda: stack.enter_context(closing(begin())))
            await self._received(first, request, writer)
            # A stream that was cancelled may end like one that is complete. The cancellation arrives while the disk
            # works, and so before the batch exists.
            await in_thread(writer.flush, config.request_count if config.HasField("request_count") else None)
            new = await in_thread(writer.finish)
        self._batches.changed()
        return batch_pb2.CreateBatchResponse(batch=self._described(new))

    async def _received(
        self,
        first: batch_pb2.CreateBatchRequest | None,
        rest: AsyncIterator[batch_pb2.CreateBatchRequest],
        writer: BatchWriter,
    ) -> None:
        """Write the requests of a call, some together."""
        group: list[batch_pb2.BatchItem] = []
        number = size = 0
        if first is not None and first.HasField("item"):
            number, group = 1, [first.item]
            batch_items.check(first.item, number, self._batches.limits)
        async for message in rest:
            number += 1
            if not message.HasField("item"):
                raise InvalidRequestError(f"message {number} after the settings is no request", field="part")
            await offload_if_heavy(
                weight_of_message(message), batch_items.check, message.item, number, self._batches.limits
            )
            group.append(message.item)
            size += message.ByteSize()
            if size >= GROUP_BYTES:
                await in_thread(_write, writer, group)
                group, size = [], 0
        await in_thread(_write, writer, group)

    @unary
    async def GetBatch(self, request: batch_pb2.GetBatchRequest, context: Context) -> batch_pb2.GetBatchResponse:
        """Describe a batch."""
        return batch_pb2.GetBatchResponse(batch=self._described(await self._found(request.id)))

    @unary
    async def ListBatches(
        self, request: batch_pb2.ListBatchesRequest, context: Context
    ) -> batch_pb2.ListBatchesResponse:
        """List the batches of the caller."""
        await self._batches.check()
        listed = batch_items.behind(self._batches.store.listed(batch_items.owner()[0]), request.after_id)
        found, token = page(
            listed, lambda each: (-each.config.create_ns, each.id), request, ["ListBatches", request.after_id]
        )
        return batch_pb2.ListBatchesResponse(batches=map(self._described, found), next_page_token=token)

    @unary
    async def CancelBatch(
        self, request: batch_pb2.CancelBatchRequest, context: Context
    ) -> batch_pb2.CancelBatchResponse:
        """End a batch, and keep its results."""
        found = await self._found(request.id)
        await self._batches.cancel(found)
        return batch_pb2.CancelBatchResponse(batch=self._described(found))

    @unary
    async def DeleteBatch(
        self, request: batch_pb2.DeleteBatchRequest, context: Context
    ) -> batch_pb2.DeleteBatchResponse:
        """End a batch, and remove it."""
        await self._batches.delete(await self._found(request.id))
        return batch_pb2.DeleteBatchResponse()

    @unary
    async def DeleteBatchResults(
        self, request: batch_pb2.DeleteBatchResultsRequest, context: Context
    ) -> batch_pb2.DeleteBatchResultsResponse:
        """Remove results of a batch that has ended."""
        found = await self._found(request.id)
        await in_thread(self._batches.store.delete_results, found, failed=_KINDS.get(request.kind))
        return batch_pb2.DeleteBatchResultsResponse(batch=self._described(found))

    @streaming
    async def StreamBatchResults(self, request: batch_pb2.StreamBatchResultsRequest, context: Context) -> None:
        """Stream the results of a batch."""
        found, failed = await self._found(request.id), _KINDS.get(request.kind)
        offset = 0
        while True:
            # Looked at before the results are read: a batch that has ended has no results but those.
            ended = found.ended
            more, following = await in_thread(
                self._batches.store.read_results, found, offset, request.after_index, failed=failed
            )
            for each in more:
                await context.write(await offload_if_heavy(len(each.payload) // 1000, _message, each))
            if following > offset:
                offset = following
            elif ended or not request.follow:
                return
            else:
                await self._batches.news(FOLLOW_SECONDS)

    async def _found(self, id_: str) -> Batch:
        await self._batches.check()
        return self._batches.store.get(batch_items.owner()[0], id_)

    def _described(self, batch: Batch) -> batch_pb2.Batch:
        config, progress = batch.config, batch.progress
        described = batch_pb2.Batch(
            id=batch.id,
            state=_STATES[progress.state],
            request_count=config.total,
            completed_count=progress.completed,
            failed_count=progress.failed,
            create_time=_moment(config.create_ns),
            expire_time=_moment(config.expire_ns),
            answer_bytes=progress.answer_bytes,
            error_bytes=progress.error_bytes,
            metadata=config.metadata,
            client_data=bytes.fromhex(config.client_data),
        )
        if progress.start_ns:
            described.start_time.CopyFrom(_moment(progress.start_ns))
        if batch.ended:
            described.end_time.CopyFrom(_moment(progress.end_ns))
            described.delete_time.CopyFrom(_moment(int(self._batches.store.kept_until(batch) * 1e9)))
        return described


def _write(writer: BatchWriter, items: Sequence[batch_pb2.BatchItem]) -> None:
    for each in items:
        writer.add(each.custom_id, each.SerializeToString(), alone=batch_items.runs_alone(each))


def _message(record: Record) -> batch_pb2.StreamBatchResultsResponse:
    message = batch_pb2.StreamBatchResultsResponse.FromString(record.payload)
    message.index = record.index
    return message


def _moment(ns: int) -> Timestamp:
    moment = Timestamp()
    moment.FromNanoseconds(ns)
    return moment


def _check_config(config: batch_pb2.BatchConfig) -> None:
    """Raise InvalidRequestError if the settings of a batch exceed a limit."""
    if len(config.metadata) > MOST_PAIRS:
        raise InvalidRequestError(f"metadata has more than {MOST_PAIRS} pairs", field="config.metadata")
    for key, value in config.metadata.items():
        if len(key) > LONGEST_KEY or len(value) > LONGEST_VALUE:
            text = f"keys of metadata have {LONGEST_KEY} characters at most, and values {LONGEST_VALUE}"
            raise InvalidRequestError(text, field="config.metadata")
    if len(config.client_data) > MOST_DATA:
        raise InvalidRequestError(f"client_data has more than {MOST_DATA} bytes", field="config.client_data")
