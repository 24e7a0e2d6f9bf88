"""Records of requests as messages of DiagnosticsService."""

from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from puna.diagnostics.content import Content, RecordedAnswer
from puna.diagnostics.records import Record
from puna.events import RequestEnded
from puna.rpc.answers import TOOL_CALLS, finish_reason
from puna.rpc.server_info import PHASES
from puna_client.v1 import diagnostics_pb2, message_pb2, server_pb2, usage_pb2

_OUTCOMES: Final = {
    "running": diagnostics_pb2.REQUEST_OUTCOME_RUNNING,
    "succeeded": diagnostics_pb2.REQUEST_OUTCOME_SUCCEEDED,
    "failed": diagnostics_pb2.REQUEST_OUTCOME_FAILED,
    "cancelled": diagnostics_pb2.REQUEST_OUTCOME_CANCELLED,
    "refused": diagnostics_pb2.REQUEST_OUTCOME_REFUSED,
}


def outcome(record: Record) -> "diagnostics_pb2.RequestOutcome.ValueType":
    """Return how a request ended."""
    return _OUTCOMES[record.outcome]


def message(record: Record, *, with_content: bool = False) -> diagnostics_pb2.RequestRecord:
    """Return the message of a record."""
    began, facts = record.began, record.facts
    found = diagnostics_pb2.RequestRecord(
        number=record.number,
        request_id=began.id,
        model=record.model,
        method=began.method,
        http_route=began.http_route,
        key_name=began.key,
        start_time=timestamp(began.start_ns),
        outcome=outcome(record),
        queue_position=record.queue_position,
        tool_call_count=record.tool_calls,
        content=_content(record.content) if with_content else None,
    )
    if record.end_ns:
        # The wall clock may have been set back.
        found.end_time.FromNanoseconds(max(record.end_ns, began.start_ns))
    # A request that begins at this moment has no facts yet.
    if facts is not None:
        found.phase = PHASES.get(facts.phase, server_pb2.REQUEST_PHASE_UNSPECIFIED)
        if facts.failed:
            found.error_reason = facts.outcome
        elif facts.outcome:
            called = facts.outcome == "stop" and record.tool_calls
            found.finish_reason = finish_reason(TOOL_CALLS if called else facts.outcome)
        found.arrival_queue_position = facts.arrival_position
        found.vector_count = facts.vectors
        found.usage.CopyFrom(_usage(facts))
        found.timings.CopyFrom(_timings(facts, record))
    return found


def _usage(facts: RequestEnded) -> usage_pb2.Usage:
    return usage_pb2.Usage(
        prompt_tokens=facts.prompt_tokens,
        cached_prompt_tokens=facts.cached_tokens,
        output_tokens=facts.output_tokens,
        truncated_tokens=facts.truncated_tokens,
        draft_tokens=facts.draft_tokens,
        accepted_draft_tokens=facts.accepted_draft_tokens,
    )


def _timings(facts: RequestEnded, record: Record) -> diagnostics_pb2.RequestTimings:
    stages = record.stages or {}
    # The bookkeeping of a lease takes some microseconds, also if nothing was waited for or loaded.
    waited = "queue" in stages or facts.arrival_position
    return diagnostics_pb2.RequestTimings(
        total=duration(facts.seconds),
        queue=_if_any(facts.queue_seconds) if waited else None,
        load=_if_any(facts.load_seconds) if "load" in stages else None,
        render=_if_any(record.render_seconds),
        prefill=_if_any(facts.prefill_seconds),
        decode=_if_any(facts.decode_seconds),
        time_to_first_token=_if_any(facts.first_token_seconds),
    )


def _content(content: Content) -> diagnostics_pb2.RequestContent:
    return diagnostics_pb2.RequestContent(
        options_json=content.options_json.decode(),
        sequences=[
            diagnostics_pb2.RecordedSequence(
                choice=each.choice,
                prompt=each.prompt.decode(),
                prompt_token_ids=each.token_ids,
                messages_json=each.messages_json.decode(),
                constraint=each.constraint,
            )
            for each in content.sequences
        ],
        inputs=[each.decode() for each in content.inputs],
        media=[diagnostics_pb2.RecordedMedia(size_bytes=each.size_bytes, digest=each.digest) for each in content.media],
        answers=map(_answer, content.answers),
        error_message=content.error.decode(errors="ignore"),
        prompt_omitted=content.prompt_omitted,
        answer_omitted=content.answer_omitted,
        truncated=content.truncated,
        redacted_count=content.redacted,
    )


def _answer(answer: RecordedAnswer) -> diagnostics_pb2.RecordedAnswer:
    return diagnostics_pb2.RecordedAnswer(
        choice=answer.choice,
        text=answer.text.decode(),
        thinking=answer.thinking.decode(),
        tool_calls=[
            message_pb2.ToolCall(id=call.id, index=call.index, name=call.name, arguments_json=arguments.decode())
            for call, arguments in answer.tool_calls
        ],
    )


def timestamp(nanoseconds: int) -> Timestamp:
    """Return a time in nanoseconds since 1970 as a message."""
    found = Timestamp()
    found.FromNanoseconds(nanoseconds)
    return found


def duration(seconds: float) -> Duration:
    """Return a time span as a message."""
    found = Duration()
    found.FromNanoseconds(max(int(seconds * 1e9), 0))
    return found


def _if_any(seconds: float) -> Duration | None:
    return duration(seconds) if seconds > 0 else None
