"""The health service grpc.health.v1.

Three kinds of names have a status. The server (the empty name) and each service are SERVING while the store can be read
and the end of the server has not begun. A model, `puna.v1/NAME`, is SERVING while it is also loaded and takes requests:
it is not while it loads, after it was unloaded or evicted, and after its host crashed. A balancer that checks a model
therefore sends requests only to servers that answer without a load.
"""

import asyncio
from collections.abc import Collection
from typing import Any, Final, cast

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from puna.auth.caller import current
from puna.blocking import retrieve_exception
from puna.errors import PunaError, ServerEndingError
from puna.rpc.error_boundary import Context, streaming, unary
from puna.rpc.health_list import HealthListRequest, HealthListResponse
from puna.rpc.intake import Guarded
from puna.serving.core import Serving

LOOK_SECONDS: Final = 2.0
"""Seconds in which the store's disk must answer."""
WATCH_SECONDS: Final = 1.0
"""Seconds between two checks for a watcher, and so the longest delay of a change."""
MODEL: Final = "puna.v1/"
"""Beginning of the names of models."""
Status = health_pb2.HealthCheckResponse


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Serves grpc.health.v1."""

    def __init__(self, core: Serving, services: Collection[str]) -> None:
        """`services`: full names of the services. The empty name stands for the server."""
        self._core = core
        self._services = {"", *services}
        self._look: asyncio.Future[None] | None = None

    def add_to(self, server: Guarded) -> None:
        """Add the service to a server, with the method List, which older versions of the generated code do not have."""
        health_pb2_grpc.add_HealthServicer_to_server(self, cast("grpc.aio.Server", server))
        handler = grpc.unary_unary_rpc_method_handler(
            self.List, HealthListRequest.FromString, HealthListResponse.SerializeToString
        )
        server.add_registered_method_handlers("grpc.health.v1.Health", {"List": handler})

    @unary
    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> health_pb2.HealthCheckResponse:
        """Return the status of the server, a service or a model."""
        status = await self._status(request.service)
        # The protocol of grpc.health.v1 wants NOT_FOUND here, and SERVICE_UNKNOWN in `Watch`.
        if status == Status.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"neither a service nor a model: {request.service!r}")
        return Status(status=status)

    @streaming
    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> None:
        """Stream the status and each change."""
        told = None
        while True:
            status = await self._status(request.service)
            if status != told:
                await context.write(Status(status=status))
                told = status
            # A stream without an end of its own must not hold up the end of the server.
            if self._core.activity.ending:
                raise ServerEndingError
            await self._core.activity.pause(WATCH_SECONDS)

    @unary
    async def List(self, request: object, context: Context) -> Any:  # noqa: ANN401 - see puna.rpc.health_list
        """Return the status of the server, of each service and of each loaded model.

        Where requests need a key, models are left out: this service answers callers without one.
        """
        status = await self._server_status()
        answer = HealthListResponse()
        for name in self._services:
            answer.statuses[name].status = status
        caller = current()
        for each in () if caller.gate and caller.gate.closed and not caller.local else self._core.loaded():
            answer.statuses[MODEL + each.name].status = status if each.accepts else Status.NOT_SERVING
        return answer

    async def _status(self, service: str) -> int:
        if service in self._services:
            return await self._server_status()
        if not service.startswith(MODEL):
            return Status.SERVICE_UNKNOWN
        status = await self._server_status()
        if status != Status.SERVING:
            return status
        try:
            is_loaded = await self._core.is_loaded(service.removeprefix(MODEL))
        except PunaError:
            return Status.SERVICE_UNKNOWN
        # The store went away since the check above.
        except OSError:
            return Status.NOT_SERVING
        return Status.SERVING if is_loaded else Status.NOT_SERVING

    async def _server_status(self) -> int:
        if self._core.activity.leaving or not await self._store_answers():
            return Status.NOT_SERVING
        return Status.SERVING

    async def _store_answers(self) -> bool:
        """Return whether the store can be read in time. Checks share one thread, which a disk that hangs may hold."""
        if self._look is None or self._look.done():
            self._look = asyncio.ensure_future(asyncio.to_thread(self._core.check_readable))
            self._look.add_done_callback(retrieve_exception)
        # Another check may replace the attribute while this one waits.
        look = self._look
        await asyncio.wait({look}, timeout=LOOK_SECONDS)
        return look.done() and look.exception() is None
