"""Reading the bodies of requests."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from puna_rest.errors import NativeError, RestError
from puna_rest.gobody.decoder import decode
from puna_rest.gobody.kinds import Struct
from puna_rest.gobody.scanner import BodyError, Document, EmptyBodyError, parse
from puna_rest.translate import cloud
from puna_rest.zstd import PackedBodyError, unpack


async def native(request: web.BaseRequest, kind: Struct) -> tuple[Document, Mapping[str, Any]]:
    """Read a body of /api/*. Raises RestError."""
    try:
        return typed(await request.read(), kind)
    except EmptyBodyError:
        raise RestError(400, "missing request body") from None
    except BodyError as error:
        raise RestError(400, str(error)) from None


async def compatible(request: web.BaseRequest, kind: Struct) -> tuple[Document, Mapping[str, Any]]:
    """Read a body of /v1/*. Raises RestError; NativeError if it names a model in the cloud or cannot be unpacked."""
    body = await request.read()
    if request.headers.get("Content-Encoding") == "zstd":
        try:
            body = unpack(body)
        except PackedBodyError as error:
            raise NativeError(400, str(error)) from None
    if cloud.body_names_cloud(body):
        raise NativeError(403, cloud.REFUSED)
    try:
        return typed(body, kind)
    except BodyError as error:
        raise RestError(400, str(error)) from None


def typed(body: bytes, kind: Struct) -> tuple[Document, Mapping[str, Any]]:
    """Read a body: its text and its fields. Raises BodyError."""
    document = parse(body)
    fields = decode(document, kind)
    assert isinstance(fields, Mapping)
    return document, fields
