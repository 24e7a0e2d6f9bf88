"""Routes that only a cloud could serve, answered as the reference does when its cloud is switched off."""

from typing import Any, Final

from aiohttp import web

from puna_rest import answers, reading
from puna_rest.errors import RestError

RECOMMENDATIONS: Final[tuple[dict[str, Any], ...]] = (
    {
        "model": "kimi-k2.6:cloud",
        "description": "State-of-the-art coding, long-horizon execution, and multimodal agent swarm capability",
        "context_length": 262144,
        "max_output_tokens": 262144,
    },
    {
        "model": "glm-5.1:cloud",
        "description": "Reasoning and code generation",
        "context_length": 202752,
        "max_output_tokens": 131072,
    },
    {
        "model": "qwen3.5:cloud",
        "description": "Reasoning, coding, and agentic tool use with vision",
        "context_length": 262144,
        "max_output_tokens": 32768,
    },
    {
        "model": "minimax-m2.7:cloud",
        "description": "Fast, efficient coding and real-world productivity",
        "context_length": 204800,
        "max_output_tokens": 128000,
    },
    {"model": "gemma4", "description": "Reasoning and code generation locally", "vram_bytes": 12000000000},
    {
        "model": "qwen3.5",
        "description": "Reasoning, coding, and visual understanding locally",
        "vram_bytes": 14000000000,
    },
)


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
    """GET /api/experimental/model-recommendations."""
    return answers.json(request, {"recommendations": RECOMMENDATIONS})


async def _disabled(request: web.Request, what: str) -> RestError:
    if not (await reading.whole(request, small=True)).strip():
        return RestError(400, "missing request body")
    return RestError(403, f"ollama cloud is disabled: {what} is unavailable")
