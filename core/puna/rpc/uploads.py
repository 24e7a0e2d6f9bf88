"""Receiving a blob.

Each chunk is written before the next is read, so that a slow disk slows the client down and memory stays bounded. A
blob has a size limit, and an upload stops before the disk is full, because other programs write there too. A declared
size is checked before anything is received.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Final

from puna.blocking import in_thread
from puna.errors import InvalidDigestError, InvalidRequestError, TooLargeError
from puna.models.storage import durable
from puna.models.storage.blobs import Blob, BlobStore, BlobWriter
from puna_client.v1 import models_pb2

_DRAIN_SECONDS: Final = 60.0
_CHECK_EVERY: Final = 64 << 20
"""Bytes of an upload between two checks of the free space."""


async def received(
    blobs: BlobStore, parts: AsyncIterator[models_pb2.UploadBlobRequest], most: int = sys.maxsize
) -> Blob:
    """Store a blob of at most `most` bytes. A blob that the store has already is not read.

    An upload that fails or is cancelled leaves no file behind.

    Raises:
        InvalidRequestError: the first message is not `config`.
        InvalidDigestError: the digest is malformed.
        DigestMismatchError: the content has another digest.
        TooLargeError: the blob exceeds the limit.
        OSError: the disk failed or has no room for the blob.
    """
    first = await anext(parts, None)
    if first is None or first.WhichOneof("part") != "config":
        raise InvalidRequestError("the first message must be `config`", field="config")
    config = first.config
    if not config.digest:
        raise InvalidDigestError(field="config.digest")
    # The content is addressed by its digest, so a blob that is there is the same. Gigabytes need not travel again.
    if await asyncio.to_thread(blobs.has, config.digest):
        return Blob(config.digest, await asyncio.to_thread(blobs.size, config.digest), created=False)
    try:
        return await _written(blobs, config, parts, most)
    except OSError:
        # A client of grpc.aio that is still sending when its call ends gets "Internal error" instead of the status.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                async for _ in parts:
                    pass
        raise


async def _written(
    blobs: BlobStore,
    config: models_pb2.BlobConfig,
    parts: AsyncIterator[models_pb2.UploadBlobRequest],
    most: int,
) -> Blob:
    _check_size(config.size_bytes, most)
    with ExitStack() as stack:
        writer = await in_thread(stack.enter_context, blobs.writer())
        await in_thread(durable.check_room, blobs.folder, config.size_bytes)
        async for part in parts:
            _check_size(writer.size + len(part.chunk), most)
            await in_thread(_append, blobs, writer, part.chunk)
        # A cancelled upload can look like a complete one. A declared size tells them apart.
        whole = config.size_bytes > 0 and writer.size == config.size_bytes
        return await in_thread(writer.commit, config.digest, keep=whole)


def _append(blobs: BlobStore, writer: BlobWriter, chunk: bytes) -> None:
    # The free space is looked up when the size passes a multiple of the interval, not for each chunk.
    if writer.size // _CHECK_EVERY != (writer.size + len(chunk)) // _CHECK_EVERY:
        durable.check_room(blobs.folder, len(chunk))
    writer.write(chunk)


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise TooLargeError(f"the blob is larger than {most} bytes; PUNA_MAX_UPLOAD_BYTES changes the limit")
