"""The options `--past` and `--show` of the command `requests`: the records of a server that keeps them."""

import time
from collections.abc import Iterator
from typing import Final

from google.protobuf.duration_pb2 import Duration

from puna.cli.client import connected
from puna.cli.listing import print_json
from puna.cli.tables import relative_time, table
from puna.cli.texts import printable
from puna.paging import read_pages
from puna.settings import Settings
from puna_client.v1 import diagnostics_pb2, diagnostics_pb2_grpc

HEADERS: Final = ("NUMBER", "REQUEST", "MODEL", "METHOD", "OUTCOME", "TOKENS", "SECONDS", "BEGAN")
_OUTCOMES: Final = {
    diagnostics_pb2.REQUEST_OUTCOME_RUNNING: "running",
    diagnostics_pb2.REQUEST_OUTCOME_SUCCEEDED: "succeeded",
    diagnostics_pb2.REQUEST_OUTCOME_FAILED: "failed",
    diagnostics_pb2.REQUEST_OUTCOME_CANCELLED: "cancelled",
    diagnostics_pb2.REQUEST_OUTCOME_REFUSED: "refused",
}
_DURATIONS: Final = ("queue", "load", "render", "prefill", "decode", "time_to_first_token")


async def past(settings: Settings, model: str, *, as_json: bool) -> None:
    """Print the records of a model's requests, or of all, newest first. Raises CommandError."""
    async with connected(settings) as channel:
        stub = diagnostics_pb2_grpc.DiagnosticsServiceStub(channel)
        request = diagnostics_pb2.ListRequestRecordsRequest(model=model)
        found = (await read_pages(stub.ListRequestRecords, request)).records
    if as_json:
        print_json(found)
        return
    now = time.time()
    print(table(HEADERS, [tuple(map(printable, row(each, now))) for each in found]))


async def show(settings: Settings, name: str, *, as_json: bool) -> None:
    """Print the record of one request, given its number or its id. Raises CommandError."""
    # Ids that the server chooses begin with a letter.
    number = int(name) if name.isdecimal() and len(name) < 19 else None
    request = diagnostics_pb2.GetRequestRecordRequest(number=number) if number is not None else None
    async with connected(settings) as channel:
        stub = diagnostics_pb2_grpc.DiagnosticsServiceStub(channel)
        answer = await stub.GetRequestRecord(request or diagnostics_pb2.GetRequestRecordRequest(request_id=name))
    if as_json:
        print_json([answer.record])
        return
    print("\n".join(map(printable, described(answer.record))))


def row(record: diagnostics_pb2.RequestRecord, now: float) -> tuple[str, ...]:
    """Return the cells of a record. `now` is in seconds since 1970."""
    return (
        str(record.number),
        record.request_id,
        record.model.removesuffix(":latest") or "-",
        record.method,
        outcome(record),
        str(record.usage.output_tokens or record.vector_count),
        f"{_seconds(record.timings.total):.1f}",
        relative_time(record.start_time.ToNanoseconds() / 1e9 - now),
    )


def outcome(record: diagnostics_pb2.RequestRecord) -> str:
    """Return how a request ended, with the reason of its error."""
    found = _OUTCOMES.get(record.outcome, "-")
    return found if record.error_reason in ("", "CANCELLED") else f"{found}: {record.error_reason}"


def described(record: diagnostics_pb2.RequestRecord) -> Iterator[str]:
    """Yield the lines that show a record: facts first, then texts, each below a heading."""
    content, usage, times = record.content, record.usage, record.timings
    spans = [(name.replace("_", " "), getattr(times, name)) for name in _DURATIONS if times.HasField(name)]
    durations = ", ".join(f"{name} {_seconds(span):.3f}" for name, span in spans)
    facts = {
        "number": str(record.number),
        "request": record.request_id,
        "model": record.model,
        "method": record.method + (f" ({record.http_route})" if record.http_route else ""),
        "key": record.key_name,
        "began": record.start_time.ToJsonString(),
        "outcome": outcome(record),
        "error": content.error_message,
        "queue": f"{record.arrival_queue_position} before it" if record.arrival_queue_position else "",
        "tokens": f"{usage.prompt_tokens} prompt, {usage.cached_prompt_tokens} cached, {usage.output_tokens} output",
        "seconds": f"{_seconds(times.total):.3f}" + (f" ({durations})" if durations else ""),
        "options": content.options_json if content.options_json != "{}" else "",
        "media": ", ".join(f"{each.size_bytes} bytes {each.digest[:12]}" for each in content.media),
        "left out": ", ".join(_missing(content)),
    }
    for name, value in facts.items():
        if value:
            yield f"{name:<10}{value}"
    for each in content.sequences:
        ids = " ".join(map(str, each.prompt_token_ids))
        yield from _section("prompt", each.choice, each.prompt or each.messages_json or ids)
    for number, text in enumerate(content.inputs):
        yield from _section("input", number, text)
    for answer in content.answers:
        yield from _section("thinking", answer.choice, answer.thinking)
        yield from _section("answer", answer.choice, answer.text)
        for call in answer.tool_calls:
            yield from _section("tool call", answer.choice, f"{call.name} {call.arguments_json}")


def _section(name: str, index: int, text: str) -> Iterator[str]:
    if text:
        yield ""
        yield f"--- {name} {index} ---" if index else f"--- {name} ---"
        yield text


def _missing(content: diagnostics_pb2.RequestContent) -> Iterator[str]:
    if content.prompt_omitted:
        yield "prompts"
    if content.answer_omitted:
        yield "answers"
    if content.truncated:
        yield "text beyond the bound"
    if content.redacted_count:
        yield f"passages that match a pattern: {content.redacted_count}"


def _seconds(given: Duration) -> float:
    return given.ToNanoseconds() / 1e9
