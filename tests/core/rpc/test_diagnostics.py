"""DiagnosticsService: past requests, log lines and server events."""

import grpc
import pytest

from puna_client.v1 import diagnostics_pb2


async def test_a_server_that_keeps_no_requests_says_so(stubs):
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await stubs.diagnostics.ListRequestRecords(diagnostics_pb2.ListRequestRecordsRequest())
    assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "keeps no records" in failed.value.details()
