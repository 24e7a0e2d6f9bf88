"""/ and /api/version."""

from aiohttp import web

from puna_client.v1 import server_pb2
from puna_rest import answers
from puna_rest.core import CORE, metadata


async def root(request: web.Request) -> web.StreamResponse:
    """GET, HEAD /."""
    return answers.text(request, "Ollama is running", "text/plain; charset=utf-8")


async def version(request: web.Request) -> web.StreamResponse:
    """GET, HEAD /api/version."""
    info = await request.app[CORE].server.GetServerInfo(server_pb2.GetServerInfoRequest(), metadata=metadata())
    return answers.json(request, {"version": info.ollama_version})
