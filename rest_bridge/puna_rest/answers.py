"""Responses that are sent at once, and the JSON shape of errors in each family of routes."""

from typing import Final

from aiohttp import web

from puna.go import json as gojson
from puna_rest.errors import Failure
from puna_rest.translate.openai import chat_answer as openai_chat

JSON: Final = "application/json"
JSON_UTF8: Final = "application/json; charset=utf-8"
CHUNKED_ABOVE: Final = 2048
"""Bytes above which a body is sent in chunks, without Content-Length. Go's HTTP server buffers this many bytes."""


def text(request: web.BaseRequest, body: str, content_type: str = JSON_UTF8, status: int = 200) -> web.Response:
    """Return a response with a text. Go decides by size alone whether it sends Content-Length, and so does this."""
    response = web.Response(body=body.encode(), status=status, headers={"Content-Type": content_type})
    # A character has four bytes at most, so a short text needs no look at its bytes.
    if len(body) > CHUNKED_ABOVE // 4 and request.version >= (1, 1) and request.method != "HEAD":
        assert isinstance(response.body, bytes)
        if len(response.body) > CHUNKED_ABOVE:
            response.enable_chunked_encoding()
    return response


def json(request: web.BaseRequest, value: object, content_type: str = JSON_UTF8, status: int = 200) -> web.Response:
    """Return a response with a value as Go's encoder writes it."""
    return text(request, gojson.dumps(value), content_type, status)


def json_line(request: web.BaseRequest, value: object, status: int = 200) -> web.Response:
    """Return a response with a value and a newline, which Ollama writes on /v1/*."""
    return line(request, gojson.dumps(value), status)


def line(request: web.BaseRequest, encoded: str, status: int = 200) -> web.Response:
    """Return a response with encoded JSON and a newline."""
    return text(request, encoded + "\n", JSON, status)


def empty(status: int = 200) -> web.Response:
    """Return a response without a body."""
    return web.Response(status=status)


def native_error(request: web.BaseRequest, failure: Failure) -> web.Response:
    """Return the error response of /api/*."""
    return json(request, {"error": failure.text}, status=failure.status)


def native_stream_error(request: web.BaseRequest, failure: Failure) -> web.Response:
    """Return the error response of a stream that has no line yet.

    Ollama omits the charset and the length for errors that occur after the request has started to run.
    """
    if failure.while_running:
        return flushed(request, json(request, {"error": failure.text}, JSON, failure.status))
    return native_error(request, failure)


def flushed(request: web.BaseRequest, response: web.Response) -> web.Response:
    """Make a response chunked, as the stream would have been that it replaces."""
    if request.version >= (1, 1):
        response.enable_chunked_encoding()
    return response


def openai_error(request: web.BaseRequest, failure: Failure) -> web.Response:
    """Return the error response of OpenAI's routes."""
    return v1_error(request, failure, openai_chat.error(failure))


def v1_error(request: web.BaseRequest, failure: Failure, value: object) -> web.Response:
    """Return an error response of /v1/*.

    In Ollama, the handlers of these routes end a body with a newline and name no charset, and checks before them do
    the opposite. Errors of the core belong to the former, errors of the bridge to the latter.
    """
    if failure.from_core:
        return json_line(request, value, failure.status)
    return json(request, value, status=failure.status)
