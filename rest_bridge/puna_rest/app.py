"""The bridge as an aiohttp application.

One handler, `dispatch`, serves every request, because Ollama's order differs from aiohttp's router: redirects come
first, then the Origin and Host rules, then the route. A handler runs as a task. When the client hangs up, aiohttp
cancels the task, the task cancels its gRPC call, and the core stops decoding. On shutdown the bridge lets running
requests finish for a while and then cancels them itself; only these end with an error message.
"""

import asyncio
import logging
import math
import ssl
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import unquote

import grpc.aio
from aiohttp import HttpVersion11, web

from puna import request_log
from puna.limits import DEFAULT_LIMITS, Limits
from puna.request_log import LONGEST_ID
from puna.traceback_summary import summarize
from puna_rest import answers, cors, hosts, routing, streams
from puna_rest.connections import Connection, Connections
from puna_rest.core import CHANNEL_OPTIONS, CORE, REQUEST_ID, Core, connect, forward
from puna_rest.errors import TOO_DEEP, UNEXPECTED, BusyError, Failure, NativeError, RestError, failure
from puna_rest.gobody.decoder import AbortError
from puna_rest.listener import listening
from puna_rest.request_bodies import LIMITS
from puna_rest.response_items import ITEMS, Items
from puna_rest.table import served

log = logging.getLogger(__name__)

LAST_GRACE: Final = 1.0
"""Seconds in which cancelled requests send their error message during shutdown."""
RETRY_AFTER: Final = "1"
"""Value of Retry-After, in seconds, for requests that a busy server refuses."""
UNAUTHORIZED: Final = 401
TOO_MANY: Final = 429
_ORIGIN: Final = "origin"
"""Key in a request's match_info: the origin for Access-Control-Allow-Origin, or an empty string."""
_TABLE: Final = web.AppKey("table", routing.Table)
_RULES: Final = web.AppKey("rules", hosts.Rules)
_RUNNING: Final = web.AppKey("running", set[asyncio.Task[object]])
"""Tasks of running requests."""
_ENDED: Final = web.AppKey("ended", set[asyncio.Task[object]])
"""Tasks that shutdown has cancelled, as opposed to tasks whose client hung up."""
_LEAVING: Final[web.AppKey[Callable[[], bool]]] = web.AppKey("leaving")
"""Returns whether the server is about to end."""
_ENDING: Final = Failure(503, "the server is shutting down")


def _stays() -> bool:
    return False


def build(
    core: Core,
    rules: hosts.Rules,
    limits: Limits,
    is_leaving: Callable[[], bool] = _stays,
    *,
    metrics: bool = False,
    dashboard: bool = False,
) -> web.Application:
    """Return the application. `rules` and `limits` hold for every request; see `bridging` for the others."""
    app = web.Application()
    app[_TABLE] = served(metrics=metrics, dashboard=dashboard)
    app[CORE] = core
    app[ITEMS] = Items(limits.max_kept_answer_bytes)
    app[_RULES] = rules
    app[LIMITS] = limits
    app[_LEAVING] = is_leaving
    app[_RUNNING], app[_ENDED] = set(), set()
    app.router.add_route("*", "/{path:.*}", dispatch, expect_handler=_expect)
    app.on_response_prepare.append(_trim)
    return app


@asynccontextmanager
async def bridging(
    core: str | grpc.aio.Channel,
    *,
    host: str,
    port: int,
    origins: Sequence[str] = (),
    allowed_hosts: Sequence[str] = (),
    limits: Limits = DEFAULT_LIMITS,
    tls: Callable[[], ssl.SSLContext] | None = None,
    drain_seconds: float = 1.0,
    metrics: bool = False,
    dashboard: bool = False,
    is_leaving: Callable[[], bool] = _stays,
) -> AsyncGenerator[str]:
    """Serve HTTP until the context ends; yield the URL.

    Args:
        core: the address of the core, or an open channel, which stays the caller's.
        host: the address or name to listen on.
        port: the port to listen on; 0 takes a free one.
        origins: allowed origins beside the local ones, as OLLAMA_ORIGINS has them.
        allowed_hosts: names for the Host rule, as PUNA_ALLOWED_HOSTS has them.
        limits: bounds on requests and connections.
        tls: returns the TLS context of a new connection; None: no TLS.
        drain_seconds: time for running requests to finish on exit. Requests that take longer end with an error.
        metrics: whether `/metrics` is served.
        dashboard: whether `/dashboard` is served.
        is_leaving: returns whether the server is about to end. Each response then closes its connection.

    Raises:
        OSError: the address is not available.
        cors.BadOriginError: an origin is not valid.
    """
    if isinstance(core, str):
        async with (
            grpc.aio.insecure_channel(core, options=CHANNEL_OPTIONS) as channel,
            bridging(
                channel,
                host=host,
                port=port,
                origins=origins,
                allowed_hosts=allowed_hosts,
                limits=limits,
                tls=tls,
                drain_seconds=drain_seconds,
                metrics=metrics,
                dashboard=dashboard,
                is_leaving=is_leaving,
            ) as url,
        ):
            yield url
        return
    rules = hosts.Rules(cors.policy(origins), hosts.names(allowed_hosts))
    app = build(connect(core), rules, limits, is_leaving, metrics=metrics, dashboard=dashboard)
    # Without handler_cancellation the handler of a client that hung up goes on, and so does the decoding behind it.
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=LAST_GRACE)
    await runner.setup()
    server = runner.server
    assert server is not None

    def make(connections: Connections) -> Connection:
        return Connection(server, connections)

    try:
        async with listening(host, port, limits, make, tls) as bound:
            address = f"[{host}]" if ":" in host else host
            yield f"{'https' if tls else 'http'}://{address}:{bound}"
    finally:
        await _drain(app, drain_seconds)
        await runner.cleanup()


async def dispatch(request: web.Request) -> web.StreamResponse:
    """Serve one request: redirect, then Origin and Host rules, then the route's handler, 404 or 405."""
    connection = request.protocol
    assert isinstance(connection, Connection)
    connection.begin(request)
    forward(request.headers)
    table = request.app[_TABLE]
    if (redirect := table.redirect(request)) is not None:
        return redirect
    # A fragment is never sent on purpose, so "#" and the text after it belong to the path. aiohttp cuts them off.
    path = request.path if "#" not in request.raw_path else unquote(request.raw_path.partition("?")[0])
    route, parameter = table.find(path)
    refusal, origin = _judge(request)
    if refusal is None and route is not None and request.method in route.handlers:
        request.match_info[routing.PARAMETER] = parameter
        request.match_info[_ORIGIN] = origin
        return await _handle(request, route)
    response = refusal or (routing.not_found() if route is None else routing.not_allowed())
    if origin:
        cors.allow(response, origin)
    if route is not None and request.method not in route.handlers:
        response.headers["Allow"] = ", ".join(route.handlers)
    return response


def _judge(request: web.Request) -> tuple[web.Response | None, str]:
    rules = request.app[_RULES]
    # An absolute URL in the request line overrides the Host header (RFC 9112, section 3.2.2).
    host = request.headers.get("Host", "") if request.raw_path.startswith("/") else request.url.raw_authority
    refusal, origin = cors.judge(request, rules.origins, host)
    if refusal is None:
        verdict = rules.judge(host, request.headers, local=_is_local(request))
        if verdict == "refused":
            refusal = web.Response(status=403)
        elif verdict == "unlisted":
            refusal = answers.native_error(request, failure(hosts.unlisted(host)))
        elif verdict == "name" and request.method == "OPTIONS":
            refusal = web.Response(status=204)
    return refusal, origin


def _is_local(request: web.Request) -> bool:
    """Return whether the request came over the loopback interface."""
    name = request.transport.get_extra_info("sockname") if request.transport else None
    return isinstance(name, tuple) and hosts.is_loopback(name[0])


async def _expect(request: web.Request) -> None:
    """Send 100 Continue, unless the declared length exceeds the limit and the request will be refused unread."""
    upload = request.path.startswith("/api/blobs/")
    if request.headers["Expect"].lower() != "100-continue":
        raise web.HTTPExpectationFailed
    if upload or (request.content_length or 0) <= request.app[LIMITS].max_request_bytes:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the interim response does not count as part of the response


async def _drain(app: web.Application, seconds: float) -> None:
    """Wait up to `seconds` for running requests, then cancel the rest and wait for their error messages."""
    running = app[_RUNNING]
    if running:
        await asyncio.wait(running, timeout=seconds if seconds < math.inf else None)
    for task in running:
        app[_ENDED].add(task)
        task.cancel()
    if running:
        await asyncio.wait(running, timeout=LAST_GRACE)


async def _handle(request: web.Request, route: routing.Route) -> web.StreamResponse:
    task = asyncio.current_task()
    assert task is not None, "requests are answered in tasks"
    request.app[_RUNNING].add(task)
    try:
        with request_log.http_request(request.method, route.path) as ended:
            response = await _answered(request, route)
            ended(response.status)
            return response
    except asyncio.CancelledError:
        if task not in request.app[_ENDED]:
            raise
        return await streams.cut(request, _ENDING) or route.error(request, _ENDING)
    finally:
        request.app[_RUNNING].discard(task)


async def _answered(request: web.Request, route: routing.Route) -> web.StreamResponse:
    try:
        return await route.handlers[request.method](request)
    except NativeError as error:
        return answers.native_error(request, failure(error))
    except BusyError as error:
        response = route.error(request, failure(error))
        response.headers["Retry-After"] = RETRY_AFTER
        return response
    except (grpc.aio.AioRpcError, RestError) as error:
        failed = failure(error)
        response = route.error(request, failed)
        if failed.status == TOO_MANY:
            response.headers["Retry-After"] = str(failed.retry_after)
        elif failed.status == UNAUTHORIZED:
            response.headers["WWW-Authenticate"] = "Bearer"
        return response
    except (AbortError, RecursionError):
        return route.error(request, failure(RestError(400, TOO_DEEP)))
    except (ConnectionError, web.HTTPException):
        raise  # aiohttp answers these itself, or the client is gone
    except Exception as error:
        log.error("%s %s failed: %s", request.method, route.path, summarize(error))
        failed = failure(RestError(500, UNEXPECTED))
        return await streams.cut(request, failed) or route.error(request, failed)


async def _trim(request: web.Request, response: web.StreamResponse) -> None:
    """Make the headers equal Ollama's: add the allowed origin, remove those that only aiohttp sends."""
    if origin := request.match_info.get(_ORIGIN):
        cors.allow(response, origin)
    response.headers.pop("Server", None)
    # Ollama sends no such header, so only a client that knows it gets it back.
    if (given := request.headers.get(REQUEST_ID, "")).isascii() and 0 < len(given) <= LONGEST_ID:
        response.headers[REQUEST_ID] = given
    if request.app[_LEAVING]():
        # The counterpart of GOAWAY: the client must not send its next request on this connection.
        response.force_close()
        response.headers["Connection"] = "close"
    if request.version < HttpVersion11 and response.content_length is None and request.method != "HEAD":
        # An HTTP/1.0 client finds the end of a body without a length by the end of the connection.
        response.force_close()
        response.headers.pop("Connection", None)
    if request.method == "HEAD" and not 0 < (response.content_length or 0) <= answers.CHUNKED_ABOVE:
        response.headers.pop("Content-Length", None)  # a GET would be sent in chunks, without a length
