"""Which clients of the /v1 routes get the forms of OpenAI's and Anthropic's APIs where Ollama's differ.

These APIs demand a key or a version in a header, so their clients send one, whatever its value. A request with such a
header gets the counts of cached tokens, and the arguments of tool calls while they are written. A request without one
gets Ollama's bytes.
"""

from typing import Final

from aiohttp import web

HEADERS: Final = ("Authorization", "anthropic-version", "x-api-key")


def is_api_client(request: web.BaseRequest) -> bool:
    """Return whether a request comes from a client of OpenAI's or Anthropic's API."""
    return any(name in request.headers for name in HEADERS)
