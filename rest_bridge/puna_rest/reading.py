"""Reading the bodies of requests.

A body is measured while it is read. Its declared length is looked at first, and nothing is read of a body that says
itself that it is too long.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

from aiohttp import web

from puna.go.json_scanner import BodyError, Document, EmptyBodyError, parse
from puna.limits import Limits
from puna.offload import aside, weight_of_body
from puna_rest import zstd
from puna_rest.connections import Connection
from puna_rest.errors import NativeError, RestError, TooLargeError
from puna_rest.gobody.decoder import decode
from puna_rest.gobody.kinds import Struct
from puna_rest.translate import cloud
from puna_rest.zstd import PackedBodyError, unpack

QUICK_BODY: Final = 1024
"""Bytes of a packed body that is unpacked sooner than a thread is found for it."""
LIMITS: Final = web.AppKey("limits", Limits)
_LARGE: Final = "PUNA_MAX_REQUEST_BYTES"
_SMALL: Final = "PUNA_MAX_CONTROL_BYTES"


async def whole(request: web.Request, *, small: bool = False) -> bytes:
    """Read a body. `small`: the request only names models. RestError: it is too long, or does not arrive."""
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
        size += len(piece)
        if size > most:
            raise TooLargeError(most, setting)
        connection.hold(size)
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def chunks(request: web.Request, most: int | None) -> AsyncGenerator[bytes]:
    """Yield a body as it comes, in pieces of at most `most` bytes. RestError: it does not arrive, or is garbled."""
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
    """Read a body of /api/*, a large one beside the event loop. `small`: it only names models. Raises RestError."""
    body = await whole(request, small=small)
    try:
        most = request.app[LIMITS].max_json_values
        return await aside(await weight_of_body(body), typed, body, kind, most)
    except EmptyBodyError:
        raise RestError(400, "missing request body") from None
    except BodyError as error:
        raise RestError(400, str(error)) from None


async def compatible(request: web.Request, kind: Struct) -> tuple[Document, Mapping[str, Any]]:
    """Read a body of /v1/*. Raises RestError; NativeError if it names a model in the cloud or cannot be unpacked."""
    packed = request.headers.get("Content-Encoding") == "zstd"
    most = min(zstd.LONGEST, request.app[LIMITS].max_request_bytes)
    body = await (_read(request, most, "") if packed else whole(request))
    if packed:
        try:
            body = await _unpacked(request, body, most)
        except PackedBodyError as error:
            raise NativeError(400, str(error)) from None
    try:
        values = request.app[LIMITS].max_json_values
        return await aside(await weight_of_body(body), _checked, body, kind, values)
    except BodyError as error:
        raise RestError(400, str(error)) from None


async def _unpacked(request: web.Request, body: bytes, most: int) -> bytes:
    """Unpack a body, outside of the event loop unless that takes no time. Raises PackedBodyError, RestError."""
    frames = request.app[LIMITS].max_packed_frames
    quick = len(body) < QUICK_BODY
    unpacked = unpack(body, most, frames) if quick else await asyncio.to_thread(unpack, body, most, frames)
    connection = request.protocol
    assert isinstance(connection, Connection)
    connection.hold(len(body) + len(unpacked))
    return unpacked


def typed(body: bytes, kind: Struct, most_values: int) -> tuple[Document, Mapping[str, Any]]:
    """Read a body: its text and its fields. Raises BodyError."""
    return _fields(parse(body, most_values), kind)


def _checked(body: bytes, kind: Struct, most_values: int) -> tuple[Document, Mapping[str, Any]]:
    """Do the same. NativeError: it names a model in the cloud. Ollama looks before it reads the body in earnest."""
    document = parse(body, most_values)
    if cloud.names_cloud_model(document):
        raise NativeError(403, cloud.REFUSED)
    return _fields(document, kind)


def _fields(document: Document, kind: Struct) -> tuple[Document, Mapping[str, Any]]:
    fields = decode(document, kind)
    assert isinstance(fields, Mapping)
    return document, fields
