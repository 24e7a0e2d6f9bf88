"""Answers in one piece, and the shapes of errors in the three families of routes."""

from typing import Final

from aiohttp import web

from puna.go import json as gojson
from puna_rest.errors import Failure
from puna_rest.translate.openai import chat_answer as openai_chat

JSON: Final = "application/json"
JSON_UTF8: Final = "application/json; charset=utf-8"
CHUNKED_ABOVE: Final = 2048
"""Longest body, in bytes, that is sent with its length."""


def text(request: web.BaseRequest, body: str, content_type: str = JSON_UTF8, status: int = 200) -> web.Response:
    """Answer with a text."""
    response = web.Response(body=body.encode(), status=status, headers={"Content-Type": content_type})
    if len(body) > CHUNKED_ABOVE // 4 and request.version >= (1, 1) and request.method != "HEAD":
        assert isinstance(response.body, bytes)
        if len(response.body) > CHUNKED_ABOVE:
            response.enable_chunked_encoding()
    return response


def json(request: web.BaseRequest, value: object, content_type: str = JSON_UTF8, status: int = 200) -> web.Response:
    """Answer with a JSON value."""
    return text(request, gojson.dumps(value), content_type, status)


def json_line(request: web.BaseRequest, value: object, status: int = 200) -> web.Response:
    """Answer with a JSON value and a newline, as /v1/* does."""
    return line(request, gojson.dumps(value), status)


def line(request: web.BaseRequest, encoded: str, status: int = 200) -> web.Response:
    """Answer with a JSON text and a newline."""
    return text(request, encoded + "\n", JSON, status)


def empty(status: int = 200) -> web.Response:
    """Answer with nothing."""
    return web.Response(status=status)


def native_error(request: web.BaseRequest, failure: Failure) -> web.Response:
    """Say what went wrong, on /api/*."""
    return json(request, {"error": failure.text}, status=failure.status)


def native_stream_error(request: web.BaseRequest, failure: Failure) -> web.Response:
    """Say what went wrong before the first line of a stream: the charset is lost once the request is being run."""
    if failure.while_running:
        return flushed(request, json(request, {"error": failure.text}, JSON, failure.status))
    return native_error(request, failure)


def flushed(request: web.BaseRequest, response: web.Response) -> web.Response:
    """Send an answer without its length, as one that was to be a stream."""
    if request.version >= (1, 1):
        response.enable_chunked_encoding()
    return response


def openai_error(request: web.BaseRequest, failure: Failure) -> web.Response:
    """Say what went wrong, on /v1/* but /v1/messages."""
    return v1_error(request, failure, openai_chat.error(failure))


def v1_error(request: web.BaseRequest, failure: Failure, value: object) -> web.Response:
    """Say what went wrong on /v1/*: what the core says looks otherwise than what the bridge says."""
    if failure.from_core:
        return json_line(request, value, failure.status)
    return json(request, value, status=failure.status)
