"""A front before a registry that does what lines, storages and registries do to their clients when they are unkind.

`front.on(what, method=..., path=..., times=...)` arms a fault; faults are used up in the order they were armed in.
"""

import asyncio
import contextlib
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from yarl import URL

PASSED = ("Content-Type", "Content-Length", "Content-Range", "Range", "Accept", "Content-Range")


@dataclass
class Cut:
    """Send so many bytes of the body, then drop the line."""

    after: int


@dataclass
class Stall:
    """Send so many bytes of the body, then nothing until the client goes."""

    after: int


@dataclass
class Corrupt:
    """Change a byte of the body."""


@dataclass
class Answer:
    """Answer so oneself."""

    status: int
    body: str = ""
    headers: dict = field(default_factory=dict)


@dataclass
class Slow:
    """Send the body a little at a time."""

    chunk: int
    seconds: float


@dataclass
class CutUpload:
    """Read so many bytes of what the client sends, then drop the line."""

    after: int


class NoRanges:
    """Know nothing of ranges."""


class ToStorage:
    """Send the client to a storage on another host: for a GET to the bytes, for a PATCH to where to put them."""


@dataclass
class Redirect:
    """Answer with this status and the storage's address."""

    status: int


AT_ONCE = (Answer, Redirect, ToStorage)
"""Faults that need no body."""


@dataclass
class Armed:
    what: object
    method: str
    path: re.Pattern
    times: int


@dataclass
class Seen:
    method: str
    path: str
    query: str
    headers: dict
    host: str

    def __str__(self):
        return f"{self.method} {self.path}"


class Front:
    """The front. `host` stands in names of models; `other` is the same server under another host's name."""

    def __init__(self, upstream):
        self.upstream = upstream
        self.port = 0
        self.seen = []
        self.tokens = None
        """Bearer tokens that are good; None: nobody is asked."""
        self.basic = None
        """The Basic header that is good; None: nobody is asked."""
        self.realm = None
        self.grant = lambda request: web.json_response({"token": "good"})
        self.relative = False
        """Whether upload sessions have relative addresses."""
        self.sent = 0
        """Bytes of bodies that went to clients."""
        self._armed = []
        self._parts = {}
        self._session = None

    @property
    def host(self):
        return f"127.0.0.1:{self.port}"

    @property
    def other(self):
        return f"localhost:{self.port}"

    def on(self, what, method="GET", path="/blobs/", times=1):
        self._armed.append(Armed(what, method, re.compile(path), times))

    def asked(self, method, path=""):
        return [each for each in self.seen if each.method == method and path in each.path]

    def _fault(self, request):
        for armed in self._armed:
            if request.headers.get("Range") == "bytes=0-0" and not isinstance(armed.what, AT_ONCE):
                continue  # a client that only asks where the bytes are
            if armed.times and armed.method == request.method and armed.path.search(request.path):
                armed.times -= 1
                return armed.what
        return None

    async def handle(self, request):
        seen = Seen(request.method, request.path, request.query_string, dict(request.headers), request.host)
        self.seen.append(seen)
        if request.path == "/token":
            granted = self.grant(request)
            return await granted if asyncio.iscoroutine(granted) else granted
        if request.path.startswith("/storage/"):
            return await self._storage(request)
        if (refusal := self._refusal(request)) is not None:
            return refusal
        match self._fault(request):
            case Answer() as answer:
                return web.Response(status=answer.status, text=answer.body, headers=answer.headers)
            case ToStorage():
                return self._to_storage(request)
            case Redirect(status):
                return web.Response(status=status, headers={"Location": f"http://{self.other}/storage{request.path}"})
            case CutUpload(after):
                return await self._pass(request, cut_upload=after)
            case fault:
                return await self._pass(request, fault)

    def _refusal(self, request):
        given = request.headers.get("Authorization", "")
        if self.basic is not None and given != self.basic:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="here"'})
        if self.tokens is not None and given.removeprefix("Bearer ") not in self.tokens:
            scope = "repository:" + request.path.split("/v2/")[1].split("/blobs/")[0].split("/manifests/")[0] + ":pull"
            realm = self.realm or f"http://{self.host}/token"
            header = f'Bearer realm="{realm}",service="tests",scope="{scope}"'
            return web.Response(status=401, headers={"WWW-Authenticate": header})
        return None

    def _to_storage(self, request):
        if request.method == "GET":
            return web.Response(
                status=307, headers={"Location": f"http://{self.other}/storage{request.path}?sign=a%2Fb"}
            )
        first, _, last = request.headers["Content-Range"].partition("-")
        return web.Response(
            status=307,
            headers={
                "Location": f"http://{self.other}/storage/{first}/{last}",
                "Docker-Upload-Location": str(request.url),
            },
        )

    async def _storage(self, request):
        if request.method == "PUT":
            first = int(request.path.split("/")[2])
            self._parts[first] = await request.read()
            return web.Response(status=200)
        fault = next((each for each in self._armed if each.times and each.method == "STORAGE"), None)
        if fault is not None:
            fault.times -= 1
            if isinstance(fault.what, Answer):
                return web.Response(status=fault.what.status, text=fault.what.body)
        return await self._pass(request, fault.what if fault else None, path=request.path.removeprefix("/storage"))

    async def _pass(self, request, fault=None, *, path=None, cut_upload=None):
        """Hand a request on, and its answer back."""
        headers = {name: request.headers[name] for name in PASSED if name in request.headers}
        if isinstance(fault, NoRanges):
            headers.pop("Range", None)
        url = str(request.rel_url) if path is None else path
        body = request.content.iter_any()
        if cut_upload is not None:
            body = self._some(request, cut_upload)
        elif request.method == "PUT" and "digest" in request.query and self._parts:
            url = await self._forwarded(url)
            headers.pop("Content-Length", None)
            body = b""
        headers["Host"] = request.host
        try:
            async with self._session.request(
                request.method,
                URL(f"http://{self.upstream}{url}", encoded=True),
                headers=headers,
                data=body if request.method in ("POST", "PUT", "PATCH") else None,
                allow_redirects=False,
            ) as answer:
                return await self._back(request, answer, fault)
        except aiohttp.ClientError:
            request.transport.abort()
            return web.Response(status=502)

    async def _forwarded(self, url):
        """Give the registry all that was put into the storage, in one piece; return the address to commit at."""
        body = b"".join(self._parts[first] for first in sorted(self._parts))
        self._parts.clear()
        address = URL(f"http://{self.upstream}{url.partition('&digest')[0]}", encoded=True)
        headers = {"Content-Type": "application/octet-stream", "Content-Range": f"0-{len(body) - 1}"}
        async with self._session.patch(address, data=body, headers=headers) as answer:
            session = urlsplit(answer.headers["Location"])
        return f"{session.path}?{session.query}&digest{url.partition('&digest')[2]}"

    async def _some(self, request, count):
        async for chunk in request.content.iter_any():
            yield chunk[:count]
            count -= len(chunk)
            if count <= 0:
                request.transport.abort()
                raise aiohttp.ClientConnectionError("cut")

    async def _back(self, request, answer, fault):
        headers = {k: v for k, v in answer.headers.items() if k not in ("Transfer-Encoding", "Connection", "Date")}
        if self.relative and "Location" in headers:
            headers["Location"] = str(URL(headers["Location"], encoded=True).relative())
        response = web.StreamResponse(status=answer.status, headers=headers)
        await response.prepare(request)
        limit = fault.after if isinstance(fault, Cut | Stall) else None
        done = 0
        async for chunk in answer.content.iter_chunked(1 << 14):
            if isinstance(fault, Corrupt) and not done:
                chunk = bytes([chunk[0] ^ 1]) + chunk[1:]
            if limit is not None and done + len(chunk) > limit:
                await response.write(chunk[: limit - done])
                self.sent += limit - done
                if isinstance(fault, Stall):
                    await asyncio.sleep(60)
                request.transport.close()
                return response
            if isinstance(fault, Slow):
                for at in range(0, len(chunk), fault.chunk):
                    await asyncio.sleep(fault.seconds)
                    await response.write(chunk[at : at + fault.chunk])
            else:
                await response.write(chunk)
            done += len(chunk)
            self.sent += len(chunk)
        await response.write_eof()
        return response


@contextlib.asynccontextmanager
async def fronting(upstream, port=0):
    """Run a front before the registry at `upstream`, host:port."""
    front = Front(upstream)
    app = web.Application(client_max_size=1 << 34)
    app.router.add_route("*", "/{path:.*}", front.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        front._session = session
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        front.port = site._server.sockets[0].getsockname()[1]
        try:
            yield front
        finally:
            await runner.cleanup()
