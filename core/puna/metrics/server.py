"""The HTTP address on which Prometheus asks for metrics.

The address is a third one beside those of the two faces, so that a network can keep it to its monitoring. If the server
has API keys, callers need one with the permission to read. It speaks plain HTTP; a Prometheus on another network asks
the REST face, which has TLS.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from puna.auth.gate import Gate
from puna.errors import PunaError
from puna.metrics.collector import CONTENT_TYPE

METHOD: Final = "/puna.v1.ServerService/GetMetrics"
"""The method whose permission the address asks for."""


@asynccontextmanager
async def serving(metrics: Callable[[], bytes], address: str, gate: Gate | None = None) -> AsyncGenerator[str]:
    """Serve `/metrics` until the context ends; yield the URL.

    `metrics` returns the text. `address` is "host:port"; port 0 takes a free one. OSError: the address is not
    available.
    """

    async def answer(request: web.Request) -> web.Response:
        try:
            if gate is not None:
                headers = {name.lower(): value for name, value in request.headers.items()}
                gate.admit(METHOD, headers, local=False, bridge=False)
        except PunaError as error:
            return web.Response(status=403 if error.reason == "PERMISSION_DENIED" else 401, text=f"{error}\n")
        return web.Response(body=metrics(), headers={"Content-Type": CONTENT_TYPE})

    app = web.Application()
    app.router.add_get("/metrics", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        host, _, port = address.rpartition(":")
        await web.TCPSite(runner, host.strip("[]") or None, int(port)).start()
        yield f"http://{host}:{runner.addresses[0][1]}/metrics"
    finally:
        await runner.cleanup()
