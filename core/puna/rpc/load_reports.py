"""Load reports of the ORCA protocol, which gRPC's balancers read.

A report comes in the trailers of each call that runs a model, and as a stream by OpenRcaService, for balancers that ask
beside the calls. The policy `weighted_round_robin` of gRPC's clients reads both.
"""

import time
from typing import Any, Final

import grpc

from puna.errors import ServerEndingError
from puna.rpc.error_boundary import Context, streaming
from puna.serving.core import Serving
from puna_client.interop.v1.orca_pb2 import OrcaLoadReport, OrcaLoadReportRequest

TRAILER: Final = "endpoint-load-metrics-bin"
SERVICE: Final = "xds.service.orca.v3.OpenRcaService"
FRESH_SECONDS: Final = 0.1
"""Seconds for which a report in trailers is used again."""
SHORTEST_INTERVAL: Final = 0.5
"""Seconds between two reports of a stream, at least."""


class LoadReports:
    """Makes the reports of a server."""

    def __init__(self, core: Serving) -> None:
        self._core = core
        self._made = b""
        self._made_at = 0.0

    def report(self) -> OrcaLoadReport:
        """Return the load now."""
        under_way, requests, failures = self._core.activity.load.read()
        now = self._core.occupancy()
        return OrcaLoadReport(
            # Requests that wait count too, so a server whose requests wait is above 1.
            application_utilization=under_way / max(now.slots, 1),
            rps_fractional=requests,
            eps=failures,
            utilization={"kv_cache": min(now.tokens / now.most_tokens, 1)} if now.most_tokens else {},
            named_metrics={"slots": now.slots, "active_requests": now.active, "queued_requests": now.queued},
        )

    def trailer(self) -> tuple[str, bytes]:
        """Return the trailing metadata of a call."""
        now = time.monotonic()
        if now - self._made_at > FRESH_SECONDS:
            self._made, self._made_at = self.report().SerializeToString(), now
        return TRAILER, self._made

    def handlers(self) -> dict[str, Any]:
        """Return the handlers of OpenRcaService, by the names of its methods."""
        return {
            "StreamCoreMetrics": grpc.unary_stream_rpc_method_handler(
                self.StreamCoreMetrics, OrcaLoadReportRequest.FromString, OrcaLoadReport.SerializeToString
            )
        }

    @streaming
    async def StreamCoreMetrics(self, request: OrcaLoadReportRequest, context: Context) -> None:
        """Stream the load at an interval until the client leaves."""
        interval = request.report_interval.ToNanoseconds() / 1e9
        while True:
            await context.write(self.report())
            await self._core.activity.pause(max(interval, SHORTEST_INTERVAL))
            if self._core.activity.ending:
                raise ServerEndingError
