"""DiagnosticsService. The server keeps no requests, log lines or events yet, so each method says so."""

from puna.errors import UnsupportedOperationError
from puna.rpc.error_boundary import Context, streaming, unary
from puna.serving.core import Serving
from puna_client.v1 import diagnostics_pb2, diagnostics_pb2_grpc


class DiagnosticsServicer(diagnostics_pb2_grpc.DiagnosticsServiceServicer):
    """Serves DiagnosticsService."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    @unary
    async def ListRequestRecords(
        self, request: diagnostics_pb2.ListRequestRecordsRequest, context: Context
    ) -> diagnostics_pb2.ListRequestRecordsResponse:
        """List the records of requests."""
        raise UnsupportedOperationError("this server keeps no records of requests")

    @unary
    async def GetRequestRecord(
        self, request: diagnostics_pb2.GetRequestRecordRequest, context: Context
    ) -> diagnostics_pb2.GetRequestRecordResponse:
        """Return the record of one request."""
        raise UnsupportedOperationError("this server keeps no records of requests")

    @streaming
    async def StreamLogs(self, request: diagnostics_pb2.StreamLogsRequest, context: Context) -> None:
        """Stream log lines."""
        raise UnsupportedOperationError("this server keeps no log lines")

    @streaming
    async def StreamServerEvents(self, request: diagnostics_pb2.StreamServerEventsRequest, context: Context) -> None:
        """Stream server events."""
        raise UnsupportedOperationError("this server keeps no events")
