"""/v1/files."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, TypeVar

import grpc.aio
from aiohttp import web

from puna.offload import offload_if_heavy, weight_of_message
from puna_client.v1 import batch_pb2, files_pb2
from puna_rest import answers
from puna_rest.core import CORE, metadata, upload
from puna_rest.errors import RestError
from puna_rest.multipart import Form
from puna_rest.request_bodies import LIMITS
from puna_rest.routes.batches import all_batches, page_size
from puna_rest.routing import PARAMETER
from puna_rest.streams import Call
from puna_rest.translate.openai import batch_lines, batches
from puna_rest.translate.openai.batches import ResultFile

Message = TypeVar("Message")
_LARGEST_PAGE: Final = 10_000
_HEADERS: Final = {"Content-Type": "application/octet-stream"}


async def create(request: web.Request) -> web.StreamResponse:
    """POST /v1/files. The file is stored while it arrives."""
    form = Form(request, request.app[LIMITS].max_file_bytes, "PUNA_MAX_FILE_BYTES")
    if not await form.until_file("file"):
        raise RestError(400, "file is required")
    made = await upload(request.app[CORE].files.CreateFile, _parts(form), metadata())
    return answers.json_line(request, batches.file_object(made.file))


async def _parts(form: Form) -> AsyncGenerator[files_pb2.CreateFileRequest]:
    config = files_pb2.FileConfig(name=form.file_name, purpose=batches.PURPOSE)
    yield files_pb2.CreateFileRequest(config=config)
    async for chunk in form.chunks():
        yield files_pb2.CreateFileRequest(chunk=chunk)
    # The form may name its purpose behind the file.
    if form.fields.get("purpose") != batches.PURPOSE:
        raise RestError(400, f"purpose must be {batches.PURPOSE!r}")


async def list_files(request: web.Request) -> web.StreamResponse:
    """GET /v1/files."""
    size = page_size(request, _LARGEST_PAGE, _LARGEST_PAGE)
    found = [batches.file_object(each) async for each in _uploaded(request)]
    async for batch in all_batches(request):
        found += [batches.result_file_object(each, batch) for each in batches.result_files(batch)]
    if purpose := request.query.get("purpose"):
        found = [each for each in found if each["purpose"] == purpose]
    # The sort is stable, and the core has sorted what was made in the same second.
    found.sort(key=_newest_first)
    if request.query.get("order") == "asc":
        found.reverse()
    if after := request.query.get("after"):
        places = [place for place, each in enumerate(found) if each["id"] == after]
        if not places:
            raise RestError(400, "after names no file")
        found = found[places[0] + 1 :]
    return answers.json_line(request, batches.page(found[:size], more=len(found) > size))


def _newest_first(file: dict[str, Any]) -> int:
    return -int(file["created_at"])


async def _uploaded(request: web.Request) -> AsyncGenerator[files_pb2.File]:
    token = ""
    while True:
        asked = files_pb2.ListFilesRequest(page_size=1000, page_token=token)
        found = await request.app[CORE].files.ListFiles(asked, metadata=metadata())
        for each in found.files:
            yield each
        if not (token := found.next_page_token):
            return


async def get(request: web.Request) -> web.StreamResponse:
    """GET /v1/files/{id}."""
    id_ = request.match_info[PARAMETER]
    if (file := batches.result_file(id_)) is not None:
        return answers.json_line(request, batches.result_file_object(file, await _batch_of(request, file)))
    found = await request.app[CORE].files.GetFile(files_pb2.GetFileRequest(id=id_), metadata=metadata())
    return answers.json_line(request, batches.file_object(found.file))


async def delete(request: web.Request) -> web.StreamResponse:
    """DELETE /v1/files/{id}."""
    id_ = request.match_info[PARAMETER]
    if (file := batches.result_file(id_)) is not None:
        await _batch_of(request, file)
        asked = batch_pb2.DeleteBatchResultsRequest(id=file.batch_id, kind=file.kind)
        await request.app[CORE].batch.DeleteBatchResults(asked, metadata=metadata())
    else:
        await request.app[CORE].files.DeleteFile(files_pb2.DeleteFileRequest(id=id_), metadata=metadata())
    return answers.json_line(request, {"id": id_, "object": "file", "deleted": True})


async def content(request: web.Request) -> web.StreamResponse:
    """GET /v1/files/{id}/content."""
    id_ = request.match_info[PARAMETER]
    if (file := batches.result_file(id_)) is None:
        call = request.app[CORE].files.StreamFile(files_pb2.StreamFileRequest(id=id_), metadata=metadata())
        return await _stream(request, call, _chunk)
    await _batch_of(request, file)
    asked = batch_pb2.StreamBatchResultsRequest(id=file.batch_id, kind=file.kind)
    results = request.app[CORE].batch.StreamBatchResults(asked, metadata=metadata())
    return await _stream(request, results, lambda result: batch_lines.line(file.batch_id, result).encode())


async def _batch_of(request: web.Request, file: ResultFile) -> batch_pb2.Batch:
    """Return the batch of a result file. Raises RestError if there is no such file, and AioRpcError."""
    asked = batch_pb2.GetBatchRequest(id=file.batch_id)
    batch = (await request.app[CORE].batch.GetBatch(asked, metadata=metadata())).batch
    if not file.size_in(batch) or batches.origin_of(batch) is None:
        raise RestError(404, f"there is no file {file.id!r}")
    return batch


def _chunk(message: files_pb2.StreamFileResponse) -> bytes:
    return message.chunk


async def _stream(request: web.Request, call: Call[Message], write: Callable[[Message], bytes]) -> web.StreamResponse:
    """Send the messages of a call as the bytes of a file. Raises AioRpcError if nothing has been sent."""
    response = web.StreamResponse(headers=_HEADERS)
    try:
        async for message in call:
            piece = await offload_if_heavy(weight_of_message(message), write, message)
            if not response.prepared:
                await response.prepare(request)
            await response.write(piece)
    except grpc.aio.AioRpcError:
        if not response.prepared:
            raise
        # A file has no place for an error. A connection that breaks tells the client that the file is not complete.
        if request.transport is not None:
            request.transport.abort()
        raise asyncio.CancelledError from None
    finally:
        call.cancel()
    if not response.prepared:
        await response.prepare(request)
    await response.write_eof()
    return response
