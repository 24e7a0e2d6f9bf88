"""Receiving a blob: each chunk is written before the next is taken, so a fast client waits for a slow disk."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from typing import Final, ParamSpec, TypeVar

from puna.errors import InvalidDigestError, InvalidRequestError
from puna.models.blobs import Blob, BlobStore
from puna.v1 import models_pb2

P = ParamSpec("P")
T = TypeVar("T")

_DRAIN_SECONDS: Final = 60.0


async def received(blobs: BlobStore, parts: AsyncIterator[models_pb2.UploadBlobRequest]) -> Blob:
    """Store a blob; one that is there already is not read. What is broken off leaves nothing behind.

    InvalidDigestError, DigestMismatchError; InvalidRequestError: the first message has no digest.
    """
    first = await anext(parts, None)
    if first is None or first.WhichOneof("part") != "digest":
        raise InvalidRequestError("the first message must be the digest")
    if not first.digest:
        raise InvalidDigestError
    if await asyncio.to_thread(blobs.has, first.digest):
        return Blob(first.digest, await asyncio.to_thread(blobs.size, first.digest), created=False)
    try:
        return await _written(blobs, first, parts)
    except OSError:
        # A client of grpc.aio that is still sending when its call ends hears "Internal error", and not why.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                async for _ in parts:
                    pass
        raise


async def _written(
    blobs: BlobStore, first: models_pb2.UploadBlobRequest, parts: AsyncIterator[models_pb2.UploadBlobRequest]
) -> Blob:
    with ExitStack() as stack:
        writer = await _in_thread(stack.enter_context, blobs.writer())
        async for part in parts:
            await _in_thread(writer.write, part.chunk)
        # An upload that is broken off may look like one that has ended: only what was announced can be known as whole.
        whole = first.size_bytes > 0 and writer.size == first.size_bytes
        return await _in_thread(writer.commit, first.digest, keep=whole)


async def _in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function in a thread. Being cancelled waits for it first, since it uses what its caller then closes."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work})
        raise
