"""From a request's method and path to its handler, with the reference's answers to all that has none."""

import posixpath
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import quote, unquote

from aiohttp import web

from puna_rest.errors import Failure

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ErrorShape = Callable[[web.BaseRequest, Failure], web.Response]
PARAMETER: Final = "parameter"
"""Key in a request's match_info: the part of its path that its route leaves open."""
_HTML: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;"})
_URL_SAFE: Final = "/$&+,:;=@!'()*~-._"


@dataclass(frozen=True, slots=True)
class Route:
    """A path and what answers there."""

    path: str
    """May end in "{}", which stands for one more part that is not empty."""
    handlers: Mapping[str, Handler]
    """By method, in the order in which the header Allow names them."""
    error: ErrorShape


class Table:
    """All routes."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._exact = {route.path: route for route in routes if not route.path.endswith("{}")}
        self._open = {route.path[:-2]: route for route in routes if route.path.endswith("{}")}

    def find(self, path: str) -> tuple[Route | None, str]:
        """Return the route of a decoded path and the part that the route leaves open."""
        if route := self._exact.get(path):
            return route, ""
        folder, _, name = path.rpartition("/")
        return (self._open.get(folder + "/"), name) if name else (None, "")

    def redirect(self, request: web.Request) -> web.Response | None:
        """Send a request to the clean form of its path, or to the path without a last slash where that has a route."""
        target = request.raw_path if request.raw_path.startswith("/") else request.rel_url.raw_path_qs
        path, _, query = target.partition("?")
        if request.method != "CONNECT" and (clean := _clean(path)) != path:
            return _redirect(request, 307, quote(clean, safe=_URL_SAFE) + (f"?{query}" if query else ""))
        decoded = unquote(path)
        if decoded.endswith("/") and len(decoded) > 1 and self.find(decoded)[0] is None:
            route, _ = self.find(decoded[:-1])
            if route is not None and request.method in route.handlers:
                location = quote(decoded[:-1], safe=_URL_SAFE) + (f"?{query}" if query else "")
                return _redirect(request, 301 if request.method == "GET" else 307, location)
        return None


def not_found() -> web.Response:
    """Answer for a path that has no route."""
    return web.Response(status=404, body=b"404 page not found", headers={"Content-Type": "text/plain"})


def not_allowed() -> web.Response:
    """Answer for a path that has a route, but not for the method. The header Allow is the caller's."""
    return web.Response(status=405, body=b"405 method not allowed", headers={"Content-Type": "text/plain"})


def _clean(path: str) -> str:
    """Do as Go's path.Clean, keeping a last slash."""
    clean = posixpath.normpath("/" + path.lstrip("/"))
    return clean + "/" if path.endswith("/") and clean != "/" else clean


def _redirect(request: web.Request, status: int, location: str) -> web.Response:
    response = web.Response(status=status, headers={"Location": location})
    if request.method in ("GET", "HEAD"):
        response.headers["Content-Type"] = "text/html; charset=utf-8"
    if request.method == "GET":
        phrase = HTTPStatus(status).phrase
        response.body = f'<a href="{location.translate(_HTML)}">{phrase}</a>.\n\n'.encode()
    return response
