"""Serves the files of the dashboard.

Each file has a route of its own, made when the server starts, so no request can name another path. The files hold no
data: a page gets its data from the API, with the key that its user types. Hence they need no key.

The headers let a page load scripts, styles and data from its own origin alone, and keep pages of other origins from
embedding it or reading it.
"""

import hashlib
from collections.abc import Iterator
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

from aiohttp import web

from puna_rest import answers
from puna_rest.routing import Route

ROOT: Final = "/dashboard"
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data: blob:",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""The Content-Security-Policy. The last two have the browser refuse text as HTML, which no module here needs."""
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # A browser keeps the files and asks whether they have changed, so that a new version shows at once.
    "Cache-Control": "no-cache",
}
TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Content types by the ends of names. Files with other ends are not served."""
_INDEX: Final = "index.html"


@cache
def routes() -> tuple[Route, ...]:
    """Return the routes of all files."""
    found = [Route(ROOT, {"HEAD": _enter, "GET": _enter}, answers.native_error)]
    for name, file in _files(resources.files("puna_rest.dashboard") / "static", ""):
        asset = _Asset(file.read_bytes(), TYPES[_ending(name)])
        path = f"{ROOT}/{'' if name == _INDEX else name}"
        found.append(Route(path, {"HEAD": asset.serve, "GET": asset.serve}, answers.native_error))
    return tuple(found)


class _Asset:
    """A file with its content type and its ETag."""

    def __init__(self, content: bytes, content_type: str) -> None:
        self._content = content
        tag = hashlib.sha256(content).hexdigest()[:32]
        self._tag = f'"{tag}"'
        self._headers = HEADERS | {"Content-Type": content_type, "ETag": self._tag}

    async def serve(self, request: web.Request) -> web.Response:
        """Return the file, or 304 if the browser has it."""
        known = request.headers.get("If-None-Match", "")
        if any(each.strip().removeprefix("W/") in (self._tag, "*") for each in known.split(",")):
            return web.Response(status=304, headers={**HEADERS, "ETag": self._tag})
        return web.Response(body=self._content, headers=self._headers)


async def _enter(_: web.Request) -> web.Response:
    """Redirect to the folder, so that the page's relative addresses also work behind a proxy with a path of its own."""
    return web.Response(status=308, headers={**HEADERS, "Location": "dashboard/"})


def _files(folder: Traversable, path: str) -> Iterator[tuple[str, Traversable]]:
    for each in folder.iterdir():
        name = f"{path}{each.name}"
        if each.is_dir():
            yield from _files(each, f"{name}/")
        elif _ending(name) in TYPES:
            yield name, each


def _ending(name: str) -> str:
    return f".{name.rpartition('.')[2]}"
