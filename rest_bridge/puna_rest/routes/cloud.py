"""Routes of Ollama's cloud service. Puna has none and answers as Ollama does while its cloud is switched off."""

from aiohttp import web

from puna_rest import answers, request_bodies
from puna_rest.errors import RestError


async def status(request: web.Request) -> web.StreamResponse:
    """GET /api/status."""
    return answers.json(request, {"cloud": {"disabled": True, "source": "env"}})


async def me(_request: web.Request) -> web.StreamResponse:
    """POST /api/me."""
    raise RestError(503, "account unavailable")


async def signout(_request: web.Request) -> web.StreamResponse:
    """POST /api/signout, DELETE /api/user/keys/{key}."""
    raise RestError(500, "there was an error signing out")


async def web_search(request: web.Request) -> web.StreamResponse:
    """POST /api/experimental/web_search."""
    raise await _disabled(request, "web search")


async def web_fetch(request: web.Request) -> web.StreamResponse:
    """POST /api/experimental/web_fetch."""
    raise await _disabled(request, "web fetch")


async def recommendations(request: web.Request) -> web.StreamResponse:
    """GET /api/experimental/model-recommendations: none, because Puna recommends no model over another."""
    return answers.json(request, {"recommendations": []})


async def _disabled(request: web.Request, what: str) -> RestError:
    if not (await request_bodies.read(request, small=True)).strip():
        return RestError(400, "missing request body")
    return RestError(403, f"ollama cloud is disabled: {what} is unavailable")
