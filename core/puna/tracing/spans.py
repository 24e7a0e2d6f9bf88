"""Makes the spans of requests from the events of the core.

Theory. A request is one span of kind SERVER. It begins at RequestBegan, as the child of the span that the client named
in `traceparent`, or as the root of a new trace. Its own id then takes the place of the client's in the metadata of the
request, which hosts and upstreams get: what they record lies below it. Its stages become child spans. They are made
when a stage has ended, with the times that the event tells.

The events of a request come in its task or in tasks that it has created, so a context variable holds its span. A
request that the sampler leaves out has a span that records nothing; its traceparent says so to hosts and upstreams, and
its stages are dropped at once.

A short request spends a noticeable part of its time on its spans, so they are made cheaply. The tracer makes the span
of the request alone, whose attributes are set once, at its end. Stages become the finished spans that the tracer would
have made of them: their parent is sampled, they have no events and no links, and their few attributes are short.
"""

import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final, cast

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, Tracer
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, format_span_id, format_trace_id
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from puna import events
from puna.backend.metadata import enter_request, request_metadata
from puna.limits import Limits
from puna.serving.answers import Delta
from puna.tracing import attributes, content

_PROPAGATOR: Final = TraceContextTextMapPropagator()
_NO_PARENT: Final = Context()
_NO_ERROR: Final = Status()


@dataclass(slots=True, eq=False)
class _Request:
    """The span of a request that is recorded."""

    span: Span
    context: SpanContext
    """That of the span, under which its children are made."""
    start_ns: int
    found: dict[str, attributes.Value] = field(default_factory=dict)
    """Attributes that became known after its beginning."""
    stages: int = 0
    leased: bool = False
    read: bool = False
    deltas: tuple[Delta, ...] = ()


_current: ContextVar[_Request | None] = ContextVar("traced_request", default=None)


class Spans:
    """Listens to the events from its creation until `close`."""

    def __init__(self, tracer: Tracer, limits: Limits, *, with_content: bool = False) -> None:
        """With `with_content`, spans have the texts of requests and answers."""
        self._tracer = tracer
        self._limits = limits
        self._with_content = with_content
        self._stops: list[Callable[[], None]] = [
            events.subscribe(events.RequestBegan, self._on_begin),
            events.subscribe(events.RequestRead, self._on_read),
            events.subscribe(events.ModelLeased, self._on_lease),
            events.subscribe(events.StageEnded, self._on_stage),
            events.subscribe(events.RequestEnded, self._on_end),
        ]
        if with_content:
            self._stops.append(events.subscribe(events.AnswerEnded, self._on_answer))

    def close(self) -> None:
        """Listen no more."""
        for stop in self._stops:
            stop()

    def _on_begin(self, began: events.RequestBegan) -> None:
        _current.set(None)
        metadata = request_metadata()
        # Not the current context of the library: nothing may come between the client's span and this one.
        parent = _PROPAGATOR.extract(metadata, _NO_PARENT) if "traceparent" in metadata else _NO_PARENT
        span = self._tracer.start_span(
            attributes.name(began),
            parent,
            SpanKind.SERVER,
            attributes=attributes.of_beginning(began),
            start_time=began.start_ns,
        )
        context = span.get_span_context()
        # A switched-off library makes spans without an id.
        if context is None or not context.is_valid:
            return
        trace, own = format_trace_id(context.trace_id), format_span_id(context.span_id)
        entered = {**metadata, "traceparent": f"00-{trace}-{own}-{context.trace_flags:02x}"}
        # A tracestate without a valid traceparent is dropped with it.
        entered["tracestate"] = context.trace_state.to_header() if context.trace_state else ""
        enter_request(entered)
        # A span that the sampler leaves out is of another class.
        if isinstance(span, Span) and span.is_recording():
            _current.set(_Request(span, context, began.start_ns))

    def _on_read(self, read: events.RequestRead) -> None:
        # StreamEmbed reads many parts. They have the same parameters.
        if (request := _current.get()) is None or request.read:
            return
        request.read = True
        message = cast("attributes.ReadRequest", read.request)
        request.found |= attributes.of_request(message)
        if self._with_content:
            request.found |= content.of_request(message, self._limits.max_trace_content_bytes)

    def _on_lease(self, lease: events.ModelLeased) -> None:
        if (request := _current.get()) is None or request.leased:
            return
        request.leased = True
        request.found["gen_ai.response.model"] = lease.model
        request.found["puna.backend"] = lease.backend

    def _on_stage(self, ended: events.StageEnded) -> None:
        if (request := _current.get()) is None:
            return
        request.stages += 1
        # Scoring runs a sequence for each continuation, of which there may be thousands.
        if request.stages > self._limits.max_trace_stages:
            return
        found = attributes.of_facts(ended.facts)
        if ended.stage in ("queue", "prefill", "decode"):
            found["puna.choice"] = ended.choice
        if ended.error:
            found["error.type"] = ended.error
        parent, tracer = request.context, self._tracer
        span = ReadableSpan(
            ended.stage,
            context=SpanContext(
                parent.trace_id,
                tracer.id_generator.generate_span_id(),
                is_remote=False,
                trace_flags=parent.trace_flags,
                trace_state=parent.trace_state,
            ),
            parent=parent,
            resource=tracer.resource,
            attributes=found,
            status=Status(StatusCode.ERROR, ended.error) if ended.error else _NO_ERROR,
            start_time=ended.start_ns,
            # The wall clock may have been set back.
            end_time=max(ended.end_ns, ended.start_ns),
            instrumentation_scope=request.span.instrumentation_scope,
        )
        tracer.span_processor.on_end(span)

    def _on_answer(self, answer: events.AnswerEnded) -> None:
        if (request := _current.get()) is not None:
            request.deltas = cast("tuple[Delta, ...]", answer.deltas)

    def _on_end(self, ended: events.RequestEnded) -> None:
        if (request := _current.get()) is None:
            return
        _current.set(None)
        found = request.found | attributes.of_end(ended)
        if request.deltas:
            found |= content.of_answer(request.deltas, ended.reasons, self._limits.max_trace_content_bytes)
        if (dropped := request.stages - self._limits.max_trace_stages) > 0:
            found["puna.dropped_stages"] = dropped
        request.span.set_attributes(found)
        if ended.failed:
            # The text of an error may quote the request.
            request.span.set_status(Status(StatusCode.ERROR, ended.outcome))
        request.span.end(max(time.time_ns(), request.start_ns))
