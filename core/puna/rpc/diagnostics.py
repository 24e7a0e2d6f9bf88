"""DiagnosticsService. The gate has decided by then whether the caller may call; here it is decided what it sees."""

from puna.auth.caller import current
from puna.diagnostics.diagnostics import Diagnostics
from puna.diagnostics.records import Record, RequestRecords
from puna.errors import InvalidRequestError, NotFoundError, UnsupportedOperationError
from puna.offload import offload_if_heavy
from puna.rpc import record_messages
from puna.rpc.error_boundary import Context, streaming, unary
from puna.rpc.pages import page
from puna.rpc.tail_messages import level, logs, server_events, written
from puna.serving.core import Serving
from puna_client.v1 import diagnostics_pb2, diagnostics_pb2_grpc


class DiagnosticsServicer(diagnostics_pb2_grpc.DiagnosticsServiceServicer):
    """Serves DiagnosticsService."""

    def __init__(self, serving: Serving, diagnostics: Diagnostics) -> None:
        self._serving = serving
        self._diagnostics = diagnostics

    @unary
    async def ListRequestRecords(
        self, request: diagnostics_pb2.ListRequestRecordsRequest, context: Context
    ) -> diagnostics_pb2.ListRequestRecordsResponse:
        """List the records of requests."""
        found, token = page(
            filter(lambda each: _fits(each, request), self._seen()),
            lambda each: (-each.number,),
            request,
            ["ListRequestRecords", request.model, str(request.outcome), request.key_name],
        )
        return diagnostics_pb2.ListRequestRecordsResponse(
            next_page_token=token, records=[record_messages.message(each) for each in found]
        )

    @unary
    async def GetRequestRecord(
        self, request: diagnostics_pb2.GetRequestRecordRequest, context: Context
    ) -> diagnostics_pb2.GetRequestRecordResponse:
        """Return the record of one request."""
        match request.WhichOneof("name"):
            case "number":
                found = [each for each in self._seen() if each.number == request.number]
            case "request_id":
                found = [each for each in self._seen() if each.began.id == request.request_id]
            case _:
                raise InvalidRequestError("one of number and request_id must be set", field="number")
        if not found:
            # A record that is hidden from the caller must look like one that does not exist.
            raise NotFoundError("there is no record of this request, or no longer")
        record = self._records().with_answer(found[-1])
        made = await offload_if_heavy(record.content.size // 1000, record_messages.message, record, with_content=True)
        return diagnostics_pb2.GetRequestRecordResponse(record=made)

    @streaming
    async def StreamLogs(self, request: diagnostics_pb2.StreamLogsRequest, context: Context) -> None:
        """Stream log lines."""
        if (log := self._diagnostics.log) is None:
            raise UnsupportedOperationError("this server keeps no log lines")
        if request.tail_lines < 0:
            raise InvalidRequestError("tail_lines must be at least 0", field="tail_lines")
        least = request.min_level or diagnostics_pb2.LOG_LEVEL_INFO
        await written(
            log.lines,
            logs,
            context,
            self._serving.activity,
            fits=lambda line: (
                level(line.level) >= least and (not request.request_id or line.belongs_to(request.request_id))
            ),
            most=request.tail_lines if request.HasField("tail_lines") else None,
            follow=request.follow,
        )

    @streaming
    async def StreamServerEvents(self, request: diagnostics_pb2.StreamServerEventsRequest, context: Context) -> None:
        """Stream server events."""
        if (kept := self._diagnostics.events) is None:
            raise UnsupportedOperationError("this server keeps no events")
        await written(kept.items, server_events, context, self._serving.activity, follow=request.follow)

    def _records(self) -> RequestRecords:
        if self._diagnostics.requests is None:
            raise UnsupportedOperationError("this server keeps no records of requests; PUNA_RECORDS=1 turns them on")
        return self._diagnostics.requests

    def _seen(self) -> list[Record]:
        """Return the records that the caller may see, oldest first."""
        sees = current().sees_request_of
        return [each for each in self._records().all() if sees(each.began.key_id)]


def _fits(record: Record, request: diagnostics_pb2.ListRequestRecordsRequest) -> bool:
    """Return whether a record is selected."""
    return (
        (not request.model or _name(record.model) == _name(request.model))
        and (not request.outcome or record_messages.outcome(record) == request.outcome)
        and (not request.key_name or record.began.key == request.key_name)
    )


def _name(model: str) -> str:
    return model.removesuffix(":latest")
