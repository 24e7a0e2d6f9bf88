"""The methods of puna.v1 for browsers, by Connect and gRPC-Web: POST /puna.v1.SERVICE/METHOD.

Connect also has GET for unary methods that only read, so that browsers and proxies may cache and repeat such calls.

The Origin and Host rules are those of all routes, so pages of other origins need OLLAMA_ORIGINS.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import grpc.aio
from aiohttp import web
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from puna.go.json_scanner import BodyError, parse
from puna.offload import offload_if_heavy, weight_of_body, weight_of_message
from puna_client.v1 import (
    batch_pb2,
    chat_pb2,
    diagnostics_pb2,
    embed_pb2,
    files_pb2,
    generate_pb2,
    models_pb2,
    rank_pb2,
    server_pb2,
    tokenize_pb2,
)
from puna_rest import request_bodies, routing, streams
from puna_rest.core import CORE, Core, metadata
from puna_rest.errors import LONG_ERRORS, Failure, grpc_code
from puna_rest.request_bodies import LIMITS
from puna_rest.translate.web_rpc import (
    FORMATS,
    INVALID_ARGUMENT,
    JSON,
    Format,
    FormatError,
    WebStatus,
    query_message,
    timeout,
)

_LARGEST: Final = "gRPC takes larger ones, and PUNA_MAX_WEB_MESSAGE_BYTES changes the limit"
_DETAILS: Final = "grpc-status-details-bin"
_EXPOSED: Final = "Grpc-Status,Grpc-Message,Grpc-Status-Details-Bin"
"""Headers that pages of other origins may read."""
_STUBS: Final[dict[ServiceDescriptor, Callable[[Core], Any]]] = {
    generate_pb2.DESCRIPTOR.services_by_name["GenerateService"]: lambda core: core.generate,
    chat_pb2.DESCRIPTOR.services_by_name["ChatService"]: lambda core: core.chat,
    embed_pb2.DESCRIPTOR.services_by_name["EmbedService"]: lambda core: core.embed,
    models_pb2.DESCRIPTOR.services_by_name["ModelsService"]: lambda core: core.models,
    tokenize_pb2.DESCRIPTOR.services_by_name["TokenizeService"]: lambda core: core.tokenize,
    rank_pb2.DESCRIPTOR.services_by_name["RankService"]: lambda core: core.rank,
    batch_pb2.DESCRIPTOR.services_by_name["BatchService"]: lambda core: core.batch,
    files_pb2.DESCRIPTOR.services_by_name["FilesService"]: lambda core: core.files,
    server_pb2.DESCRIPTOR.services_by_name["ServerService"]: lambda core: core.server,
    diagnostics_pb2.DESCRIPTOR.services_by_name["DiagnosticsService"]: lambda core: core.diagnostics,
}
_SERVICES: Final = {service.full_name: service for service in _STUBS}
PATHS: Final = tuple(f"/{name}/{{}}" for name in _SERVICES)
"""Paths of all methods, one for each service."""


@dataclass(frozen=True, slots=True)
class _Call:
    method: MethodDescriptor
    format: Format
    content_type: str


async def call(request: web.Request) -> web.StreamResponse:
    """POST /puna.v1.SERVICE/METHOD."""
    content_type = _content_type(request)
    found = FORMATS.get(content_type)
    if found is None:
        return web.Response(status=415, headers={"Accept-Post": ", ".join(FORMATS)})
    method = _method(request)
    if method is None or method.client_streaming:
        text = "there is no such method" if method is None else "methods with a stream of requests need gRPC"
        return _ended(found, content_type, WebStatus(grpc.StatusCode.UNIMPLEMENTED.value[0], text))
    # Connect has unary calls without envelopes and streams with them. gRPC-Web always has envelopes.
    if not found.is_grpc and found.framed != method.server_streaming:
        return web.Response(status=415)
    if request.headers.get("Content-Encoding", "identity") != "identity":
        return _ended(found, content_type, WebStatus(INVALID_ARGUMENT, "compressed bodies are not supported"))
    return await _answer(request, _Call(method, found, content_type), await request_bodies.read(request))


async def get(request: web.Request) -> web.StreamResponse:
    """GET /puna.v1.SERVICE/METHOD, with the message in the query."""
    content_type = _content_type(request)
    found = FORMATS.get(content_type)
    if found is None or found.framed:
        return web.Response(status=415)
    method = _method(request)
    if method is None:
        text = "there is no such method"
        return _ended(found, content_type, WebStatus(grpc.StatusCode.UNIMPLEMENTED.value[0], text))
    level = method.GetOptions().idempotency_level
    if method.client_streaming or method.server_streaming or level != MethodOptions.NO_SIDE_EFFECTS:
        return web.Response(status=405, headers={"Allow": "POST"})
    try:
        body = query_message(request.rel_url.raw_query_string)
    except FormatError as error:
        return _ended(found, content_type, WebStatus(INVALID_ARGUMENT, str(error)))
    return await _answer(request, _Call(method, found, content_type), body)


def _content_type(request: web.BaseRequest) -> str:
    """Return the content type of the message. A GET names the codec in its query."""
    if request.method == "GET":
        return f"application/{request.query.get('encoding', '')}"
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _method(request: web.Request) -> MethodDescriptor | None:
    service = _SERVICES[request.path.split("/")[1]]
    return service.methods_by_name.get(request.match_info[routing.PARAMETER])


async def _answer(request: web.Request, asked: _Call, body: bytes) -> web.StreamResponse:
    method, found, content_type = asked.method, asked.format, asked.content_type
    seconds = timeout(request.headers.get("Connect-Timeout-Ms", ""), request.headers.get("Grpc-Timeout", ""))
    try:
        message = await _message(request, asked, body)
    except FormatError as error:
        return _ended(found, content_type, WebStatus(INVALID_ARGUMENT, str(error)))
    behaviour = getattr(_STUBS[method.containing_service](request.app[CORE]), method.name)
    # A browser reads the whole text from the message of the status, and long trailers are no help to it.
    pairs = tuple(each for each in metadata() if each != LONG_ERRORS)
    if method.server_streaming:
        return await _stream(request, asked, behaviour(message, metadata=pairs), seconds)
    try:
        async with asyncio.timeout(seconds):
            answer = await behaviour(message, metadata=pairs)
        encoded = await offload_if_heavy(weight_of_message(answer), found.message, answer)
    except (grpc.aio.AioRpcError, TimeoutError) as error:
        return _ended(found, content_type, _status(error))
    body = encoded + found.end(None) if found.framed else encoded
    return web.Response(body=body, headers=_headers(content_type))


async def _message(request: web.Request, asked: _Call, body: bytes) -> Message:
    """Read the request's message. Raises FormatError, RestError."""
    limits = request.app[LIMITS]
    message = GetMessageClass(asked.method.input_type)()

    def decode() -> None:
        data = asked.format.request(body)
        # An element of two bytes takes a hundred in memory, so elements are bounded like those of JSON.
        if asked.format.codec is JSON:
            try:
                parse(data or b"{}", limits.max_json_values)
            except BodyError as error:
                raise FormatError(str(error)) from None
        elif len(data) > limits.max_web_message_bytes:
            raise FormatError(f"a message may have at most {limits.max_web_message_bytes} bytes; {_LARGEST}")
        asked.format.codec.decode(data, message)

    await offload_if_heavy(await weight_of_body(body), decode)
    _forget_arrival(message)
    return message


def _forget_arrival(message: Any) -> None:  # noqa: ANN401 - a message of any type
    """Clear the time of arrival, which the core believes the bridge, and the bridge must not believe a client."""
    names = message.DESCRIPTOR.fields_by_name
    if "options" in names and message.HasField("options"):
        message.options.ClearField("start_time")


async def _stream(
    request: web.Request, asked: _Call, answers: streams.Call[Message], seconds: float | None
) -> web.StreamResponse:
    response = web.StreamResponse(headers=_headers(asked.content_type))
    failed: WebStatus | None = None
    try:
        async with asyncio.timeout(seconds):
            await response.prepare(request)
            streams.on_cut(request, lambda cut: _end(response, asked.format, _of_failure(cut)))
            async for message in answers:
                await response.write(await offload_if_heavy(weight_of_message(message), asked.format.message, message))
    except (grpc.aio.AioRpcError, TimeoutError) as error:
        failed = _status(error)
    finally:
        answers.cancel()  # stops decoding if the client hung up, and has no effect on a call that has ended
    return await _end(response, asked.format, failed)


async def _end(response: web.StreamResponse, form: Format, failed: WebStatus | None) -> web.StreamResponse:
    await response.write(form.end(failed))
    await response.write_eof()
    return response


def error(request: web.BaseRequest, failed: Failure) -> web.Response:
    """Return the response to a request that the bridge refuses, in the request's own format."""
    content_type = _content_type(request)
    found = FORMATS.get(content_type)
    if found is None:
        return web.Response(status=failed.status, text=failed.text)
    return _ended(found, content_type, _of_failure(failed))


def _ended(form: Format, content_type: str, failed: WebStatus) -> web.Response:
    if form.framed:
        return web.Response(body=form.end(failed), headers=_headers(content_type))
    return web.json_response(failed.as_json(), status=failed.http_status, headers=_exposed())


def _headers(content_type: str) -> dict[str, str]:
    return {"Content-Type": content_type, **_exposed()}


def _exposed() -> dict[str, str]:
    return {"Access-Control-Expose-Headers": _EXPOSED}


def _status(error: grpc.aio.AioRpcError | TimeoutError) -> WebStatus:
    if isinstance(error, TimeoutError):
        return WebStatus(grpc.StatusCode.DEADLINE_EXCEEDED.value[0], "the deadline has passed")
    details = dict(error.trailing_metadata() or ()).get(_DETAILS, b"")
    error.__traceback__ = None  # the frames hold the request, and would until the next garbage collection
    return WebStatus(error.code().value[0], error.details() or "", details if isinstance(details, bytes) else b"")


def _of_failure(failed: Failure) -> WebStatus:
    return WebStatus(grpc_code(failed), failed.text)
