"""The records of requests: those that run, and the last ones that have ended.

Theory. A record is made when a request begins, filled by the events about it, and closed when it ends. A context
variable holds the record of the current task's request, as the events of a request come in its task or in tasks that it
has created. What a running request has done so far is read from the table of requests when a caller asks for it.

Bounds. Only records of requests that have ended are dropped, the one that ended first before the others. Those of
refused calls take a quarter of the places at most, since a client that is over its limit could otherwise push all
others out within a second. The texts of all records have one bound. When it is reached, old records make room; if that
is not enough, texts are cut.
"""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from puna import events
from puna.auth.permissions import Permission, needed
from puna.backend import SequenceRequest
from puna.diagnostics.content import Content, Policy, ReadRequest, RecordedMedia, digest_of
from puna.serving.activity import Entry
from puna.serving.answers import Delta

REFUSALS: Final = frozenset(
    ("QUEUE_FULL", "TOO_LARGE", "RATE_LIMITED", "QUOTA_EXCEEDED", "PERMISSION_DENIED", "NOT_EXPOSED")
) | {"MODEL_NOT_ALLOWED"}
"""Reasons of errors for which the server does not begin a request."""


@dataclass(slots=True, eq=False)
class Record:
    """The record of a request."""

    number: int
    began: events.RequestBegan
    content: Content
    facts: events.RequestEnded | None = None
    """The event of its end, without the text of the error; None: it runs."""
    end_ns: int = 0
    """In nanoseconds since 1970; 0: it runs."""
    leased: float = 0.0
    """Monotonic time at which it had its model; 0: it has none yet."""
    render_seconds: float = 0.0
    """From then to its first sequence."""
    stages: dict[str, float] | None = None
    """Seconds of each stage that has ended, of the answer that took longest."""
    unrendered: ReadRequest | None = None
    """The request itself, kept until it has a sequence or ends."""
    tool_calls: int = 0
    queue_position: int = 0
    """Number of requests before it in the queue now."""

    @property
    def outcome(self) -> str:
        """How it ended: "running", "succeeded", "failed", "cancelled" or "refused"."""
        if self.facts is None or not self.end_ns:
            return "running"
        if not self.facts.failed:
            return "succeeded"
        if self.facts.outcome == "CANCELLED":
            return "cancelled"
        return "refused" if self.facts.outcome in REFUSALS else "failed"

    @property
    def model(self) -> str:
        """The model's name."""
        return self.facts.model if self.facts is not None else self.began.model


_current: Final[ContextVar[Record | None]] = ContextVar("recorded_request", default=None)


class RequestRecords:
    """Listens to the events about requests from its creation until `close`."""

    def __init__(self, entries: Callable[[], Iterable[Entry]], policy: Policy, *, most: int, most_bytes: int) -> None:
        """`entries` returns the requests under way. `most` records of ended requests are kept, and their texts in
        `most_bytes`."""
        self._entries = entries
        self._policy = policy
        self._most = most
        self._most_bytes = most_bytes
        self._numbers = itertools.count(1)
        self._records: dict[int, Record] = {}
        self._ended: deque[int] = deque()
        """Numbers of requests that have ended, in this order."""
        self._refused: deque[int] = deque()
        """Those of calls that were refused, in this order. They are not in the other line."""
        self._bytes = 0
        self._stops = [
            events.subscribe(events.RequestBegan, self._on_begin),
            events.subscribe(events.RequestRead, self._on_read),
            events.subscribe(events.ModelLeased, self._on_lease),
            events.subscribe(events.SequenceBegan, self._on_sequence),
            events.subscribe(events.StageEnded, self._on_stage),
            events.subscribe(events.AnswerEnded, self._on_answer),
            events.subscribe(events.RequestEnded, self._on_end),
            events.subscribe(events.CallRefused, self._on_refusal),
        ]

    def close(self) -> None:
        """Listen no more."""
        for stop in self._stops:
            stop()

    def all(self) -> list[Record]:
        """Return the records, oldest first. Those of running requests are as of now, without their answers."""
        running = {_key(each): each for each in self._entries()}
        return [each if each.end_ns else _live(each, running.get(_key(each.began))) for each in self._records.values()]

    def with_answer(self, record: Record) -> Record:
        """Return a record of `all` with the answer so far, if the request runs."""
        entry = next((each for each in self._entries() if _key(each) == _key(record.began)), None)
        if record.end_ns or entry is None:
            return record
        deltas = entry.deltas or []
        content = record.content.copy()
        if record.unrendered is not None:
            content.add_unrendered(record.unrendered)
        content.add_answer(deltas)
        return replace(record, content=content, tool_calls=sum(len(each.tool_calls) for each in deltas))

    def _on_begin(self, began: events.RequestBegan) -> None:
        record = Record(next(self._numbers), began, Content(self._policy, self._reserve))
        self._records[record.number] = record
        _current.set(record)

    def _running(self) -> Record | None:
        """Return the record of the current task's request; None if it has none, or has ended.

        A task that outlives its request keeps the context variable. What it did would be charged for good.
        """
        record = _current.get()
        return record if record is not None and not record.end_ns else None

    def _on_read(self, read: events.RequestRead) -> None:
        if (record := self._running()) is not None:
            record.unrendered = cast("ReadRequest", read.request)
            record.content.add_request(record.unrendered, _hash_later)

    def _on_lease(self, _: events.ModelLeased) -> None:
        if (record := self._running()) is not None and not record.leased:
            record.leased = time.monotonic()

    def _on_sequence(self, began: events.SequenceBegan) -> None:
        if (record := self._running()) is not None:
            if not record.content.sequences and record.leased:
                record.render_seconds = time.monotonic() - record.leased
            record.unrendered = None
            record.content.add_sequence(cast("SequenceRequest", began.request), began.choice)

    def _on_stage(self, ended: events.StageEnded) -> None:
        if (record := self._running()) is not None:
            record.stages = record.stages or {}
            seconds = (ended.end_ns - ended.start_ns) / 1e9
            record.stages[ended.stage] = max(record.stages.get(ended.stage, 0.0), seconds)

    def _on_answer(self, answer: events.AnswerEnded) -> None:
        if (record := self._running()) is not None:
            deltas = cast("tuple[Delta, ...]", answer.deltas)
            record.content.add_answer(deltas)
            record.tool_calls = sum(len(each.tool_calls) for each in deltas)

    def _on_end(self, ended: events.RequestEnded) -> None:
        if (record := self._running()) is None:
            return
        _current.set(None)
        if record.unrendered is not None:
            record.content.add_unrendered(record.unrendered)
            record.unrendered = None
        record.content.add_error(ended.error)
        self._close(record, ended, self._ended)

    def _on_refusal(self, refused: events.CallRefused) -> None:
        # Calls that only look at something have no records if they are admitted, either.
        if needed(f"/{refused.service}/{refused.method}") not in (Permission.INFERENCE, Permission.MODELS):
            return
        now = time.time_ns()
        began = events.RequestBegan(
            id=refused.id,
            model="",
            method=refused.method,
            key=refused.key,
            key_id=refused.key_id,
            batch="",
            http_route=refused.http_route,
            start_ns=now,
        )
        record = Record(next(self._numbers), began, Content(self._policy, self._reserve))
        self._records[record.number] = record
        record.content.add_error(refused.error)
        ended = events.RequestEnded(
            id=refused.id,
            model="",
            method=refused.method,
            key=refused.key,
            outcome=refused.reason,
            failed=True,
            phase="",
            seconds=0.0,
        )
        self._close(record, ended, self._refused)

    def _close(self, record: Record, ended: events.RequestEnded, line: deque[int]) -> None:
        kept = replace(ended, error="") if ended.error else ended
        record.facts, record.end_ns = _complete(kept, record), time.time_ns()
        line.append(record.number)
        while len(self._ended) + len(self._refused) > self._most:
            self._drop()

    def _reserve(self, count: int) -> int:
        """Charge bytes to the bound on all records, for which old ones are dropped; return how many are granted."""
        while self._bytes + count > self._most_bytes and (self._ended or self._refused):
            self._drop()
        granted = max(min(count, self._most_bytes - self._bytes), 0)
        self._bytes += granted
        return granted

    def _drop(self) -> None:
        """Drop the record of the call that was refused first, if there are too many, else of the one that ended first.

        There is one of either kind.
        """
        too_many = len(self._refused) > self._most // 4
        line = self._refused if too_many or not self._ended else self._ended
        self._bytes -= self._records.pop(line.popleft()).content.size


def _key(request: Entry | events.RequestBegan) -> tuple[str, int]:
    """Return what tells requests apart: clients may choose an id again, but not at the same moment."""
    return request.id, request.start_ns


def _hash_later(media: RecordedMedia, data: bytes) -> None:
    """Compute the digest of an image in a thread: it may have many megabytes."""

    def done(digest: "asyncio.Future[str]") -> None:
        if not digest.cancelled() and digest.exception() is None:
            media.digest = digest.result()

    asyncio.get_running_loop().run_in_executor(None, digest_of, data).add_done_callback(done)


def _live(record: Record, entry: Entry | None) -> Record:
    """Return the record of a running request with what is known so far."""
    if entry is None:
        return record
    seconds = max((time.time_ns() - entry.start_ns) / 1e9, 0.0)
    used = entry.usage
    facts = events.RequestEnded(
        id=entry.id,
        model=entry.model,
        method=entry.method,
        key=record.began.key,
        outcome="",
        failed=False,
        phase=entry.phase,
        arrival_position=entry.arrival_position,
        seconds=seconds,
        prompt_tokens=used.prompt_tokens if used is not None else entry.prompt_tokens,
        cached_tokens=used.cached_prompt_tokens if used is not None else 0,
        output_tokens=used.output_tokens if used is not None else entry.output_tokens,
        vectors=entry.vectors,
        # The monotonic clock tells how long ago the first delta came.
        first_token_seconds=seconds - (time.monotonic() - entry.first_output) if entry.first_output else 0.0,
    )
    return replace(record, facts=_complete(facts, record), queue_position=entry.queue_position)


def _complete(facts: events.RequestEnded, record: Record) -> events.RequestEnded:
    """Return the facts with the durations of stages, where a request that ended early has not counted them itself."""
    stages = record.stages or {}
    durations: dict[str, Any] = {
        f"{name}_seconds": stages[name]
        for name in ("queue", "load", "prefill", "decode")
        if name in stages and not getattr(facts, f"{name}_seconds")
    }
    return replace(facts, **durations) if durations else facts
