"""Request bodies: reading within limits, decompression, JSON.

The limit is compared with the declared length first, so that a body that is too long is refused unread. A body without
a declared length is measured while it arrives. Large bodies are parsed in a thread (puna.offload).
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Final

from aiohttp import web

from puna.go.json_scanner import BodyError, Document, EmptyBodyError, parse
from puna.limits import Limits
from puna.offload import offload_if_heavy, weight_of_body
from puna_rest import zstd
from puna_rest.connections import Connection
from puna_rest.errors import NativeError, RestError, TooLargeError
from puna_rest.gobody.decoder import decode
from puna_rest.gobody.kinds import Struct
from puna_rest.translate import cloud
from puna_rest.zstd import PackedBodyError, unpack

QUICK_BODY: Final = 1024
"""Bytes up to which a compressed body is decompressed on the event loop: handing it to a thread takes longer."""
LIMITS: Final = web.AppKey("limits", Limits)
_LARGE: Final = "PUNA_MAX_REQUEST_BYTES"
_SMALL: Final = "PUNA_MAX_CONTROL_BYTES"


async def read(request: web.Request, *, small: bool = False) -> bytes:
    """Read a body.

    `small` selects the limit for requests that only name models. RestError: the body is too long or incomplete.
    """
    limits = request.app[LIMITS]
    most = limits.max_control_bytes if small else limits.max_request_bytes
    return await _read(request, most, _SMALL if small else _LARGE)


async def _read(request: web.Request, most: int, setting: str) -> bytes:
    if (request.content_length or 0) > most:
        raise TooLargeError(most, setting)
    connection = request.protocol
    assert isinstance(connection, Connection)
    pieces: list[bytes] = []
    size = 0
    async for piece in chunks(request, None):
        # A declared length may be wrong, and chunked bodies have none.
        size += len(piece)
        if size > most:
            raise TooLargeError(most, setting)
        connection.hold(size)
        pieces.append(piece)
    # Small bodies come in one piece, which then needs no copy.
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def chunks(request: web.Request, most: int | None) -> AsyncGenerator[bytes]:
    """Yield a body while it arrives, in pieces of at most `most` bytes. RestError: it is incomplete or malformed."""
    connection, content = request.protocol, request.content
    assert isinstance(connection, Connection)
    connection.receive(content)
    try:
        while True:
            connection.want()
            piece = await (content.readany() if most is None else content.read(most))
            connection.silent_since = None
            if not piece:
                break
            yield piece
    except web.RequestPayloadError:
        raise RestError(400, "the request's body is cut or garbled") from None
    connection.received()


async def native(request: web.Request, kind: Struct, *, small: bool = False) -> tuple[Document, Mapping[str, Any]]:
    """Read and decode a body of /api/*. `small`: see read. Raises RestError."""
    body = await read(request, small=small)
    try:
        most = request.app[LIMITS].max_json_values
        return await offload_if_heavy(await weight_of_body(body), typed, body, kind, most)
    except EmptyBodyError:
        raise RestError(400, "missing request body") from None
    except BodyError as error:
        raise RestError(400, str(error)) from None


async def compatible(
    request: web.Request, kind: Struct | Callable[[Document], Struct]
) -> tuple[Document, Mapping[str, Any]]:
    """Read and decode a body of /v1/*. `kind` may depend on the fields that the body has.

    Raises RestError, and NativeError if the body names a model of a cloud or cannot be decompressed.
    """
    packed = request.headers.get("Content-Encoding") == "zstd"
    most = min(zstd.LONGEST, request.app[LIMITS].max_request_bytes)
    body = await (_read(request, most, "") if packed else read(request))
    if packed:
        try:
            body = await _unpacked(request, body, most)
        except PackedBodyError as error:
            raise NativeError(400, str(error)) from None
    try:
        values = request.app[LIMITS].max_json_values
        return await offload_if_heavy(await weight_of_body(body), _checked, body, kind, values)
    except BodyError as error:
        raise RestError(400, str(error)) from None


async def _unpacked(request: web.Request, body: bytes, most: int) -> bytes:
    """Decompress a body. Raises PackedBodyError, and RestError if all bodies together exceed their limit."""
    frames = request.app[LIMITS].max_packed_frames
    quick = len(body) < QUICK_BODY
    unpacked = unpack(body, most, frames) if quick else await asyncio.to_thread(unpack, body, most, frames)
    connection = request.protocol
    assert isinstance(connection, Connection)
    # Both copies exist until the request is answered.
    connection.hold(len(body) + len(unpacked))
    return unpacked


def typed(body: bytes, kind: Struct, most_values: int) -> tuple[Document, Mapping[str, Any]]:
    """Parse and decode a body. Raises BodyError with Go's text."""
    return _fields(parse(body, most_values), kind)


def _checked(
    body: bytes, kind: Struct | Callable[[Document], Struct], most_values: int
) -> tuple[Document, Mapping[str, Any]]:
    """Parse and decode a body. NativeError: it names a model of a cloud, which Ollama checks before it decodes."""
    document = parse(body, most_values)
    if cloud.names_cloud_model(document):
        raise NativeError(403, cloud.REFUSED)
    return _fields(document, kind if isinstance(kind, Struct) else kind(document))


def _fields(document: Document, kind: Struct) -> tuple[Document, Mapping[str, Any]]:
    fields = decode(document, kind)
    assert isinstance(fields, Mapping)
    return document, fields
