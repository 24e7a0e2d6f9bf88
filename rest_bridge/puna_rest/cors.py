"""Which browsers may ask: the Origin policy, which runs before everything but redirects."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from multidict import CIMultiDict

ANY: Final = "*"
METHODS: Final = "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
HEADERS: Final = (
    "Authorization,Content-Type,User-Agent,Accept,X-Requested-With,Openai-Beta,X-Stainless-Arch,X-Stainless-Async,"
    "X-Stainless-Custom-Poll-Interval,X-Stainless-Helper-Method,X-Stainless-Lang,X-Stainless-Os,"
    "X-Stainless-Package-Version,X-Stainless-Poll-Helper,X-Stainless-Retry-Count,X-Stainless-Runtime,"
    "X-Stainless-Runtime-Version,X-Stainless-Timeout"
)
LOCAL: Final = (
    *(
        f"{scheme}://{host}{port}"
        for host in ("localhost", "127.0.0.1", "0.0.0.0")
        for port in ("", ":*")
        for scheme in ("http", "https")
    ),
    *("app://*", "file://*", "tauri://*", "vscode-webview://*", "vscode-file://*"),
)
_EXTENSIONS: Final = ("chrome-extension://", "safari-extension://", "moz-extension://", "ms-browser-extension://")
_SCHEMES: Final = ("http://", "https://", *_EXTENSIONS)


class BadOriginError(ValueError):
    """An origin in the settings that can't be one."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Which origins are allowed."""

    exact: frozenset[str]
    wild: tuple[tuple[str, str], ...]
    """What they begin and end with."""
    everyone: bool

    def allows(self, origin: str) -> bool:
        """Tell whether an origin is allowed."""
        if self.everyone or origin in self.exact:
            return True
        return any(
            len(origin) >= len(start) + len(end) and origin.startswith(start) and origin.endswith(end)
            for start, end in self.wild
        )


def policy(origins: Sequence[str]) -> Policy:
    """Make a policy of the origins in the settings and the local ones. Raises BadOriginError."""
    exact: set[str] = set()
    wild: list[tuple[str, str]] = []
    for each in (*origins, *LOCAL):
        origin = each.strip().lower()
        if origin.count("*") > 1:
            raise BadOriginError(f"origin {each!r} has more than one *")
        if "*" in origin:
            start, _, end = origin.partition("*")
            wild.append((start, end))
        elif origin.startswith(_SCHEMES):
            exact.add(origin)
        else:
            raise BadOriginError(f"origin {each!r} must begin with http:// or https:// or contain a *")
    return Policy(frozenset(exact), tuple(wild), everyone=("", "") in wild)


def judge(request: web.BaseRequest, rules: Policy, host: str) -> tuple[web.Response | None, str]:
    """Return an answer, if the request ends here, and the origin that any other answer shall allow, if any.

    `host` is the one that the request names: pages from there may ask.
    """
    origin = request.headers.get("Origin", "")
    if not origin or origin in (f"http://{host}", f"https://{host}"):
        return None, ""
    if not rules.allows(origin):
        return web.Response(status=403), ""
    allowed = ANY if rules.everyone else origin
    return (_preflight(allowed), "") if request.method == "OPTIONS" else (None, allowed)


def allow(response: web.StreamResponse, origin: str) -> None:
    """Tell the browser that the origin may see an answer."""
    response.headers["Access-Control-Allow-Origin"] = origin
    if origin != ANY:
        response.headers["Vary"] = "Origin"


def _preflight(origin: str) -> web.Response:
    headers = CIMultiDict(
        {
            "Access-Control-Allow-Headers": HEADERS,
            "Access-Control-Allow-Methods": METHODS,
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Max-Age": "43200",
        }
    )
    if origin != ANY:
        for name in ("Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"):
            headers.add("Vary", name)
    return web.Response(status=204, headers=headers)
