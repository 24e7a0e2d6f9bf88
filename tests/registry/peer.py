"""A peer that answers as a test tells it to, on an address of this machine, and remembers what it was asked."""

import contextlib
from dataclasses import dataclass

from aiohttp import web

LAYER = "sha256:" + "a" * 64


@dataclass
class Asked:
    method: str
    path: str
    headers: dict
    body: bytes

    def __str__(self):
        return f"{self.method} {self.path}"


class Peer:
    """The peer. `answers` has handlers for "METHOD beginning-of-path"; what none is for is answered with 404."""

    def __init__(self):
        self.address = ""
        self.port = 0
        self.asked = []
        self.answers = {}

    @property
    def host(self):
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @property
    def url(self):
        return f"http://{self.host}"

    def on(self, what, answer):
        """Answer so: a response's keyword arguments, or a coroutine function of the request."""
        self.answers[what] = answer

    async def handle(self, request):
        self.asked.append(Asked(request.method, request.path, dict(request.headers), await request.read()))
        for what, answer in self.answers.items():
            method, _, path = what.partition(" ")
            if request.method == method and request.path.startswith(path):
                return web.Response(**answer) if isinstance(answer, dict) else await answer(request)
        return web.Response(status=404)


@contextlib.asynccontextmanager
async def peering(address="127.0.0.1"):
    """Run a peer."""
    peer = Peer()
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", peer.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, address, 0)
    await site.start()
    peer.address, peer.port = site._server.sockets[0].getsockname()[:2]
    try:
        yield peer
    finally:
        await runner.cleanup()


def to(url, status=307):
    """An answer that refers to another address."""
    return {"status": status, "headers": {"Location": url}}


def manifest(*sizes, digest=LAYER):
    """An answer with a manifest of layers of these sizes."""
    layers = ",".join(f'{{"mediaType":"application/x","digest":"{digest}","size":{size}}}' for size in sizes)
    return {"text": f'{{"schemaVersion":2,"layers":[{layers}]}}'}
