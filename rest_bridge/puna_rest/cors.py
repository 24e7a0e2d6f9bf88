"""The Origin policy (CORS). It applies before everything but redirects."""

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
RPC_HEADERS: Final = f"{HEADERS},Connect-Protocol-Version,Connect-Timeout-Ms,Grpc-Timeout,X-Grpc-Web,X-User-Agent"
"""The same for methods of gRPC, of which Ollama has none."""
RPC_PATH: Final = "/puna."
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
    """OLLAMA_ORIGINS holds an invalid origin."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The allowed origins."""

    exact: frozenset[str]
    wild: tuple[tuple[str, str], ...]
    """Prefix and suffix of each origin with a wildcard."""
    everyone: bool

    def allows(self, origin: str) -> bool:
        """Return whether an origin is allowed."""
        if self.everyone or origin in self.exact:
            return True
        return any(
            len(origin) >= len(start) + len(end) and origin.startswith(start) and origin.endswith(end)
            for start, end in self.wild
        )


def policy(origins: Sequence[str]) -> Policy:
    """Return the policy for the origins of the settings and the local ones. Raises BadOriginError."""
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
    """Apply the policy to a request.

    Returns a response if the request is refused or is a preflight, else None; and the origin that the response must
    allow, or an empty text. Pages of `host`, the request's own host, are of the same origin and always allowed.
    """
    origin = request.headers.get("Origin", "")
    # Browsers send Origin for pages of the same host too; these need no permission.
    if not origin or origin in (f"http://{host}", f"https://{host}"):
        return None, ""
    if not rules.allows(origin):
        return web.Response(status=403), ""
    allowed = ANY if rules.everyone else origin
    if request.method != "OPTIONS":
        return None, allowed
    return _preflight(allowed, RPC_HEADERS if request.path.startswith(RPC_PATH) else HEADERS), ""


def allow(response: web.StreamResponse, origin: str) -> None:
    """Add the headers by which a browser lets a page of the origin read the response."""
    response.headers["Access-Control-Allow-Origin"] = origin
    if origin != ANY:
        response.headers["Vary"] = "Origin"


def _preflight(origin: str, names: str) -> web.Response:
    headers = CIMultiDict(
        {
            "Access-Control-Allow-Headers": names,
            "Access-Control-Allow-Methods": METHODS,
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Max-Age": "43200",
        }
    )
    if origin != ANY:
        for each in ("Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"):
            headers.add("Vary", each)
    return web.Response(status=204, headers=headers)
