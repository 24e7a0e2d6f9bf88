"""The health service grpc.health.v1.

A server is SERVING while its store can be read and shutdown has not begun. All services share the two conditions.
"""

import asyncio
from collections.abc import Collection
from typing import Final

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from puna.blocking import retrieve_exception
from puna.errors import ServerEndingError
from puna.rpc.error_boundary import Context, streaming
from puna.serving.core import Serving

LOOK_SECONDS: Final = 2.0
"""Seconds in which the store's disk must answer."""
WATCH_SECONDS: Final = 1.0
"""Seconds between two checks for a watcher, and so the longest delay of a change."""
UNKNOWN: Final = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Serves grpc.health.v1."""

    def __init__(self, core: Serving, services: Collection[str]) -> None:
        """`services`: full names of the services. The empty name stands for the server."""
        self._core = core
        self._services = {"", *services}
        self._look: asyncio.Future[None] | None = None

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> health_pb2.HealthCheckResponse:
        """Return the status of a service."""
        # The protocol of grpc.health.v1 wants NOT_FOUND here, and SERVICE_UNKNOWN in `Watch`.
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return await self._answer()

    @streaming
    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> None:
        """Stream the status of a service and each change."""
        answer, told = UNKNOWN, None
        while True:
            if request.service in self._services:
                answer = await self._answer()
            if answer.status != told:
                await context.write(answer)
                told = answer.status
            # A stream without an end of its own must not hold up the end of the server.
            if self._core.activity.ending:
                raise ServerEndingError
            await self._core.activity.pause(WATCH_SECONDS)

    async def _answer(self) -> health_pb2.HealthCheckResponse:
        if self._core.activity.leaving or not await self._store_answers():
            return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.NOT_SERVING)
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

    async def _store_answers(self) -> bool:
        """Return whether the store can be read in time. Checks share one thread, which a disk that hangs may hold."""
        if self._look is None or self._look.done():
            self._look = asyncio.ensure_future(asyncio.to_thread(self._core.check_readable))
            self._look.add_done_callback(retrieve_exception)
        # Another check may replace the attribute while this one waits.
        look = self._look
        await asyncio.wait({look}, timeout=LOOK_SECONDS)
        return look.done() and look.exception() is None
