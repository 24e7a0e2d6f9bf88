"""/, /api/version and /metrics."""

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


async def metrics(request: web.Request) -> web.StreamResponse:
    """GET /metrics."""
    found = await request.app[CORE].server.GetMetrics(server_pb2.GetMetricsRequest(), metadata=metadata())
    return answers.text(request, found.text, "text/plain; version=0.0.4; charset=utf-8")
