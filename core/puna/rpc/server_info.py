"""ServerService."""

import asyncio
import json
import time
from importlib.metadata import version
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from puna.auth.caller import current
from puna.errors import ServerEndingError, UnsupportedOperationError
from puna.plugins import Plugin
from puna.plugins.table import plain
from puna.rpc.error_boundary import Context, streaming, unary
from puna.rpc.pages import page
from puna.runtime.launcher import NodeState, NodeStatus
from puna.serving.core import Serving
from puna.settings import REST_VERSION
from puna_client.v1 import server_pb2, server_pb2_grpc

SHORTEST_INTERVAL: Final = 0.1
PHASES: Final = {
    "queued": server_pb2.REQUEST_PHASE_QUEUED,
    "loading": server_pb2.REQUEST_PHASE_LOADING,
    "prefill": server_pb2.REQUEST_PHASE_PREFILL,
    "decode": server_pb2.REQUEST_PHASE_DECODE,
}
"""Phases of requests, by the names that the core has for them."""

NODE_STATES: Final = {
    NodeState.CONNECTED: server_pb2.NODE_STATE_CONNECTED,
    NodeState.CONNECTING: server_pb2.NODE_STATE_CONNECTING,
    NodeState.DISCONNECTED: server_pb2.NODE_STATE_DISCONNECTED,
}


class ServerServicer(server_pb2_grpc.ServerServiceServicer):
    """Serves ServerService."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._described: tuple[list[Plugin], server_pb2.GetServerInfoResponse] | None = None

    @unary
    async def GetServerInfo(
        self, request: server_pb2.GetServerInfoRequest, context: Context
    ) -> server_pb2.GetServerInfoResponse:
        """Return versions and backends. Clients use this as a health check, so the answer is kept until a change."""
        plugins = await asyncio.to_thread(self._serving.plugins)
        if self._described is None or self._described[0] != plugins:
            self._described = plugins, _info(plugins)
        return self._described[1]

    @unary
    async def ListRequests(
        self, request: server_pb2.ListRequestsRequest, context: Context
    ) -> server_pb2.ListRequestsResponse:
        """List the running requests."""
        found, token = page(
            self._serving.activity.entries(request.model),
            lambda entry: (entry.start_ns, entry.id),
            request,
            ["ListRequests", request.model],
        )
        return server_pb2.ListRequestsResponse(
            next_page_token=token,
            requests=[
                server_pb2.RequestInfo(
                    id=entry.id,
                    model=entry.model,
                    method=entry.method,
                    queue_position=entry.queue_position,
                    output_tokens=entry.output_tokens,
                    start_time=_timestamp(entry.start_ns),
                    phase=PHASES.get(entry.phase, server_pb2.REQUEST_PHASE_UNSPECIFIED),
                )
                for entry in found
            ],
        )

    @unary
    async def CancelRequests(
        self, request: server_pb2.CancelRequestsRequest, context: Context
    ) -> server_pb2.CancelRequestsResponse:
        """Cancel requests by id."""
        return server_pb2.CancelRequestsResponse(
            # Unknown ids are no error: a request may have ended before the call arrived.
            ids=[each for each in request.ids if self._serving.activity.cancel(each)]
        )

    @unary
    async def GetMetrics(
        self, request: server_pb2.GetMetricsRequest, context: Context
    ) -> server_pb2.GetMetricsResponse:
        """Return the metrics."""
        if self._serving.metrics is None:
            raise UnsupportedOperationError(
                "metrics are off; PUNA_METRICS_HOST, PUNA_REST_METRICS or PUNA_DASHBOARD turns them on"
            )
        return server_pb2.GetMetricsResponse(text=self._serving.metrics().decode())

    @unary
    async def ReloadConfiguration(
        self, request: server_pb2.ReloadConfigurationRequest, context: Context
    ) -> server_pb2.ReloadConfigurationResponse:
        """Read the configuration again."""
        if self._serving.reload is None:
            raise UnsupportedOperationError("this server reads no configuration")
        found = await self._serving.reload()
        return server_pb2.ReloadConfigurationResponse(changed=found.changed, pending=found.pending)

    @unary
    async def ListNodes(self, request: server_pb2.ListNodesRequest, context: Context) -> server_pb2.ListNodesResponse:
        """List the nodes."""
        found, token = page(self._serving.nodes(), lambda each: (each.address,), request, ["ListNodes"])
        return server_pb2.ListNodesResponse(nodes=map(_node, found), next_page_token=token)

    @unary
    async def ListUsage(self, request: server_pb2.ListUsageRequest, context: Context) -> server_pb2.ListUsageResponse:
        """Return the usage of API keys."""
        found, token = page(current().usage(), lambda each: (each[0].created, each[0].id), request, ["ListUsage"])
        return server_pb2.ListUsageResponse(
            next_page_token=token,
            keys=[
                server_pb2.KeyUsage(
                    key_id=key.id,
                    key_name=key.name,
                    requests=counts.requests,
                    refused_requests=counts.refused,
                    prompt_tokens=counts.prompt_tokens,
                    output_tokens=counts.output_tokens,
                    day_tokens=counts.day_tokens,
                    tokens_per_day=key.tokens_per_day,
                )
                for key, counts in found
            ],
        )

    @streaming
    async def WatchLoad(self, request: server_pb2.WatchLoadRequest, context: Context) -> None:
        """Stream the load at an interval until the client leaves."""
        interval = request.interval.ToNanoseconds() / 1e9 if request.HasField("interval") else 1.0
        while True:
            await context.write(
                server_pb2.WatchLoadResponse(
                    models=[
                        server_pb2.WatchLoadResponse.ModelLoad(
                            model=each.name,
                            active_requests=each.active,
                            queued_requests=each.queued,
                            kv_cache_active_tokens=each.kv_cache_usage.active_tokens if each.kv_cache_usage else None,
                            kv_cache_total_tokens=each.kv_cache_tokens,
                        )
                        for each in self._serving.loaded()
                    ],
                    time=_timestamp(time.time_ns()),
                    pending_requests=self._serving.waiting_for_load(),
                )
            )
            # A client must not turn this call into a busy loop.
            await self._serving.activity.pause(max(interval, SHORTEST_INTERVAL))
            if self._serving.activity.ending:
                raise ServerEndingError


def _timestamp(nanoseconds: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromNanoseconds(nanoseconds)
    return stamp


def _node(status: NodeStatus) -> server_pb2.NodeInfo:
    return server_pb2.NodeInfo(
        address=status.address,
        state=NODE_STATES[status.state],
        hosts=status.hosts,
        free_memory_bytes=status.free_bytes,
        lease_expire_time=_timestamp(status.lease_expires_ns) if status.lease_expires_ns else None,
        error=status.error,
        lost_count=status.losses,
    )


def _info(plugins: list[Plugin]) -> server_pb2.GetServerInfoResponse:
    return server_pb2.GetServerInfoResponse(
        version=version("puna"),
        ollama_version=REST_VERSION,
        backends=map(_backend, plugins),
    )


def _backend(plugin: Plugin) -> server_pb2.BackendInfo:
    info = server_pb2.BackendInfo(
        name=plugin.name,
        distribution=plugin.distribution,
        version=plugin.version,
        error=plugin.error,
        formats=plugin.formats,
    )
    if (manifest := plugin.manifest) is not None:
        info.description = manifest.description
        info.contract_version = manifest.contract
        info.capabilities.extend(manifest.capabilities.names())
        info.constraints.extend(manifest.capabilities.constraints)
        info.sampling.extend(manifest.capabilities.sampling)
        info.manifest_path = plain(str(manifest.path))
        info.options_schema_json = json.dumps(manifest.options_schema())
    return info
