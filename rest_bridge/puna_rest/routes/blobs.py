"""/api/blobs/{digest}."""

from collections.abc import AsyncGenerator
from typing import Final

import grpc
import grpc.aio
from aiohttp import web

from puna_client.v1 import models_pb2
from puna_rest import answers, request_bodies
from puna_rest.core import CORE, metadata
from puna_rest.routing import PARAMETER

CHUNK: Final = 1024 * 1024
"""Bytes of an upload in one gRPC message."""


async def head(request: web.Request) -> web.StreamResponse:
    """HEAD /api/blobs/{digest}."""
    await request.app[CORE].models.StatBlob(
        models_pb2.StatBlobRequest(digest=request.match_info[PARAMETER]), metadata=metadata()
    )
    return answers.empty()


async def upload(request: web.Request) -> web.StreamResponse:
    """POST /api/blobs/{digest}. The body is not read if the store has the blob."""
    models = request.app[CORE].models
    digest = request.match_info[PARAMETER]
    try:
        await models.StatBlob(models_pb2.StatBlobRequest(digest=digest), metadata=metadata())
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
    else:
        return answers.empty()
    stored = await models.UploadBlob(_parts(request, digest), metadata=metadata())
    return answers.empty(201 if stored.created else 200)


async def _parts(request: web.Request, digest: str) -> AsyncGenerator[models_pb2.UploadBlobRequest]:
    yield models_pb2.UploadBlobRequest(
        config=models_pb2.BlobConfig(digest=digest, size_bytes=request.content_length or 0)
    )
    async for chunk in request_bodies.chunks(request, CHUNK):
        yield models_pb2.UploadBlobRequest(chunk=chunk)
