"""/v1/batches."""

from collections.abc import AsyncGenerator
from typing import Final

from aiohttp import web

from puna.offload import offload_if_heavy, weight_of_body
from puna_client.v1 import batch_pb2, files_pb2
from puna_rest import answers, request_bodies
from puna_rest.bodies.batches import BATCH
from puna_rest.core import CORE, metadata, upload
from puna_rest.errors import RestError
from puna_rest.gobody.kinds import plain
from puna_rest.request_bodies import LIMITS
from puna_rest.response_items import ITEMS
from puna_rest.routing import PARAMETER
from puna_rest.translate.openai import batch_lines, batches

_BOM: Final = b"\xef\xbb\xbf"
_DEFAULT_PAGE: Final = 20
_LARGEST_PAGE: Final = 100


async def create(request: web.Request) -> web.StreamResponse:
    """POST /v1/batches."""
    document, body = await request_bodies.compatible(request, BATCH)
    endpoint = body["endpoint"]
    if endpoint not in batch_lines.ENDPOINTS:
        raise RestError(400, f"endpoint must be one of {', '.join(batch_lines.ENDPOINTS)}")
    if body["completion_window"] != batches.WINDOW:
        raise RestError(400, f"completion_window must be {batches.WINDOW}")
    pairs = plain(document, body["metadata"]) or {}
    if not isinstance(pairs, dict) or not all(isinstance(value, str) for value in pairs.values()):
        raise RestError(400, "metadata must be an object whose values are texts")
    config = batch_pb2.BatchConfig(metadata=pairs, client_data=batches.origin(endpoint, body["input_file_id"]))
    requests = _requests(request, config, endpoint, body["input_file_id"])
    made = await upload(request.app[CORE].batch.CreateBatch, requests, metadata())
    return _answered(request, made.batch)


async def get(request: web.Request) -> web.StreamResponse:
    """GET /v1/batches/{id}."""
    found = await request.app[CORE].batch.GetBatch(
        batch_pb2.GetBatchRequest(id=request.match_info[PARAMETER]), metadata=metadata()
    )
    return _answered(request, found.batch)


async def cancel(request: web.Request) -> web.StreamResponse:
    """POST /v1/batches/{id}/cancel."""
    found = await request.app[CORE].batch.CancelBatch(
        batch_pb2.CancelBatchRequest(id=request.match_info[PARAMETER]), metadata=metadata()
    )
    return _answered(request, found.batch)


async def list_batches(request: web.Request) -> web.StreamResponse:
    """GET /v1/batches."""
    size = page_size(request, _DEFAULT_PAGE, _LARGEST_PAGE)
    made = [each async for each in all_batches(request, request.query.get("after", ""), size + 1)]
    found = [batches.batch_object(each, kept) for each in made if (kept := batches.origin_of(each))]
    return answers.json_line(request, batches.page(found[:size], more=len(found) > size))


async def all_batches(request: web.Request, after_id: str = "", most: int = 1 << 31) -> AsyncGenerator[batch_pb2.Batch]:
    """Yield the batches of the caller that were made over this API, newest first. Raises AioRpcError."""
    token, count = "", 0
    while True:
        asked = batch_pb2.ListBatchesRequest(page_size=1000, page_token=token, after_id=after_id)
        found = await request.app[CORE].batch.ListBatches(asked, metadata=metadata())
        for each in found.batches:
            if batches.origin_of(each):
                yield each
                count += 1
                if count == most:
                    return
        if not (token := found.next_page_token):
            return


def page_size(request: web.Request, default: int, largest: int) -> int:
    """Return the query's `limit`. Raises RestError."""
    text = request.query.get("limit", "") or str(default)
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= largest):
        raise RestError(400, f"limit must be a number from 1 to {largest}")
    return int(text)


def _answered(request: web.Request, batch: batch_pb2.Batch) -> web.StreamResponse:
    if (kept := batches.origin_of(batch)) is None:
        raise RestError(404, f"the batch {batch.id!r} was not made over this API")
    return answers.json_line(request, batches.batch_object(batch, kept))


async def _requests(
    request: web.Request, config: batch_pb2.BatchConfig, endpoint: str, file_id: str
) -> AsyncGenerator[batch_pb2.CreateBatchRequest]:
    """Yield the settings of a batch, and the requests of its file. Errors name the line."""
    yield batch_pb2.CreateBatchRequest(config=config)
    values, items = request.app[LIMITS].max_json_values, request.app[ITEMS]
    number = 0
    async for line in _lines(request, file_id):
        number += 1
        # Editors and scripts leave empty lines, above all at the end.
        if not line.strip():
            continue
        try:
            weight = await weight_of_body(line)
            item = await offload_if_heavy(weight, batch_lines.item, line, endpoint, values, items.resolve)
        except RestError as error:
            raise RestError(400, f"line {number}: {error}") from None
        yield batch_pb2.CreateBatchRequest(item=item)


async def _lines(request: web.Request, file_id: str) -> AsyncGenerator[bytes]:
    """Yield the lines of a file. Raises RestError for a line that is too long, and AioRpcError."""
    most = request.app[LIMITS].max_batch_request_bytes
    call = request.app[CORE].files.StreamFile(files_pb2.StreamFileRequest(id=file_id), metadata=metadata())
    number, rest, first = 1, bytearray(), True
    try:
        async for message in call:
            rest += message.chunk.removeprefix(_BOM) if first else message.chunk
            first = False
            *lines, last = rest.split(b"\n")
            rest = last
            for each in (*lines, last):
                if len(each) > most:
                    setting = "PUNA_MAX_BATCH_REQUEST_BYTES changes the limit"
                    raise RestError(400, f"line {number} has more than {most} bytes; {setting}")
                number += each is not last
            for each in lines:
                yield bytes(each)
        if rest:
            yield bytes(rest)
    finally:
        call.cancel()
