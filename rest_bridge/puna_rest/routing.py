"""The route table: from method and path to a handler, and Ollama's redirects, 404 and 405 for the rest."""

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
"""Key in a request's match_info: the path segment that stands in the place of "{}"."""
_HTML: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;"})
_URL_SAFE: Final = "/$&+,:;=@!'()*~-._"


@dataclass(frozen=True, slots=True)
class Route:
    """A path with its handlers and its shape of errors."""

    path: str
    """May have one segment "{}", the last or the last but one, which matches any non-empty segment."""
    handlers: Mapping[str, Handler]
    """Handlers by method, in the order of the Allow header."""
    error: ErrorShape


class Table:
    """All routes. Exact paths are looked up before paths with an open segment."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = routes
        self._exact = {route.path: route for route in routes if "{}" not in route.path}
        self._open = {tuple(route.path.split("{}")): route for route in routes if "{}" in route.path}
        """By the text before the open segment and the text behind it."""

    def and_routes(self, *routes: Route) -> "Table":
        """Return a table with further routes."""
        return Table((*self._routes, *routes))

    def find(self, path: str) -> tuple[Route | None, str]:
        """Return the route of a percent-decoded path, or None, and the segment in the place of "{}"."""
        if route := self._exact.get(path):
            return route, ""
        folder, _, name = path.rpartition("/")
        above, _, segment = folder.rpartition("/")
        for before, open_, behind in ((folder, name, ""), (above, segment, f"/{name}")):
            if open_ and (route := self._open.get((f"{before}/", behind))):
                return route, open_
        return None, name

    def redirect(self, request: web.Request) -> web.Response | None:
        """Return the redirect for a path that is not clean, or whose route exists only without the trailing slash."""
        target = request.raw_path if request.raw_path.startswith("/") else request.rel_url.raw_path_qs
        path, _, query = target.partition("?")
        # Go's router cleans paths first, also those without a route, but not for CONNECT, whose target is no path.
        if request.method != "CONNECT" and (clean := _clean(path)) != path:
            return _redirect(request, 307, quote(clean, safe=_URL_SAFE) + (f"?{query}" if query else ""))
        decoded = unquote(path)
        if decoded.endswith("/") and len(decoded) > 1 and self.find(decoded)[0] is None:
            route, _ = self.find(decoded[:-1])
            if route is not None and request.method in route.handlers:
                location = quote(decoded[:-1], safe=_URL_SAFE) + (f"?{query}" if query else "")
                # Browsers may turn the method of a 301 into GET, so other methods get 307.
                return _redirect(request, 301 if request.method == "GET" else 307, location)
        return None


def not_found() -> web.Response:
    """Return the response for a path without a route."""
    return web.Response(status=404, body=b"404 page not found", headers={"Content-Type": "text/plain"})


def not_allowed() -> web.Response:
    """Return the response for a method that the route lacks. The caller adds the Allow header."""
    return web.Response(status=405, body=b"405 method not allowed", headers={"Content-Type": "text/plain"})


def _clean(path: str) -> str:
    """Return a path without empty, "." and ".." segments, like Go's path.Clean, but keep a trailing slash."""
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
