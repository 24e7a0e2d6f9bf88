"""Exports traces by OTLP while the server runs: `exporting` is what `puna serve` enters.

Spans wait in a bounded queue, and a thread of the library sends them in batches, so no request waits for a collector.
While the collector is away, the queue drops the oldest spans, and the log has one line in a minute. OpenTelemetry's own
variables configure all of it; `core/puna/tracing/README.md` names them.
"""

import asyncio
import logging
import os
import threading
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextlib import suppress as suppressing
from typing import TYPE_CHECKING, Final

from puna.limits import Limits
from puna.rate_limited_log import RateLimitedLogger

if TYPE_CHECKING:
    from collections.abc import Generator

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import SpanExporter

log = logging.getLogger(__name__)

LOG_PAUSE: Final = 60.0
"""Seconds between two log lines about the export."""
LONGEST_LINE: Final = 300
"""Characters of such a line that come from the library, which quotes collectors."""
BATCH_WITH_CONTENT: Final = 16
"""Spans in one message to the collector if spans have texts. Collectors refuse messages above 4 MiB."""
_LIBRARY: Final = "opentelemetry"
_EXTRA: Final = "PUNA_TRACES needs the extra `otel`: pip install 'puna[otel]'"


@asynccontextmanager
async def exporting(
    limits: Limits, *, with_content: bool = False, environ: Mapping[str, str] = os.environ
) -> AsyncGenerator[str]:
    """Export the traces of all requests until the context ends; yield where to, empty if nowhere.

    With `with_content`, spans have the texts of requests and answers. On exit, spans that wait are sent, within
    `limits.max_trace_flush_seconds`. OSError: the extra is not installed, or a variable has a bad value.
    """
    if not _is_on(environ):
        log.warning("OpenTelemetry's variables switch traces off")
        yield ""
        return
    try:
        # Here and not above: the modules need the extra.
        from opentelemetry.sdk.trace import Tracer, TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        from puna.tracing.spans import Spans
    except ImportError as error:
        raise OSError(_EXTRA) from error
    with _library_log():
        try:
            exporter = _exporter(environ)
            size = BATCH_WITH_CONTENT if with_content and not environ.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE") else None
            processor = BatchSpanProcessor(exporter, max_export_batch_size=size)
            # Not its own end at the exit of the interpreter, which this server skips.
            provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        except ValueError as error:
            raise OSError(f"OpenTelemetry is not configured well: {error}") from error
        provider.add_span_processor(processor)
        tracer = provider.get_tracer("puna")
        assert isinstance(tracer, Tracer)  # another one would mean that the variables switch the library off
        spans = Spans(tracer, limits, with_content=with_content)
        try:
            yield _destination(environ)
        finally:
            spans.close()
            await _stopped(provider.shutdown, exporter, limits.max_trace_flush_seconds)


def _is_on(environ: Mapping[str, str]) -> bool:
    return (
        environ.get("OTEL_SDK_DISABLED", "").strip().lower() != "true" and environ.get("OTEL_TRACES_EXPORTER") != "none"
    )


def _protocol(environ: Mapping[str, str]) -> str:
    given = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    return given or "grpc"


def _destination(environ: Mapping[str, str]) -> str:
    """Return the collector's address, for people."""
    given = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return given or f"http://localhost:{4317 if _protocol(environ) == 'grpc' else 4318}"


def _exporter(environ: Mapping[str, str]) -> "SpanExporter":
    """Return the exporter that the variables ask for. Raises ValueError."""
    kind, protocol = environ.get("OTEL_TRACES_EXPORTER") or "otlp", _protocol(environ)
    if kind != "otlp":
        raise ValueError(f"OTEL_TRACES_EXPORTER is {kind!r}; it may be otlp or none")
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc

        return Grpc()
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http

        return Http()
    raise ValueError(f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}; it may be grpc or http/protobuf")


def _resource() -> "Resource":
    """Return the resource of OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME, by default the service "puna"."""
    from importlib.metadata import version

    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    given = Resource({"service.name": "puna", "service.version": version("puna")})
    # Later attributes win.
    return Resource.create().merge(given).merge(OTELResourceDetector().detect())


class _Lines(logging.Handler):
    """Turns what the library logs into few lines of our own."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._limited = RateLimitedLogger(log, LOG_PAUSE)

    def emit(self, record: logging.LogRecord) -> None:
        """Log the line, or count it."""
        self._limited.warn("%s", f"the export of traces: {record.getMessage()[:LONGEST_LINE]}")


@contextmanager
def _library_log() -> "Generator[None]":
    """Keep the library's own lines out of the log, which would have several for each batch without a collector."""
    library, lines = logging.getLogger(_LIBRARY), _Lines()
    before = library.propagate
    library.addHandler(lines)
    library.propagate = False
    try:
        yield
    finally:
        library.removeHandler(lines)
        library.propagate = before


async def _stopped(shutdown: "object", exporter: "SpanExporter", seconds: float) -> None:
    """Send what waits and stop, but no longer than some seconds."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def stop() -> None:
        assert callable(shutdown)
        shutdown()
        with suppressing(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(done.set)

    # A daemon, and no thread of the loop's pool: asyncio would wait for those at its end.
    threading.Thread(target=stop, name="traces", daemon=True).start()
    try:
        async with asyncio.timeout(seconds):
            await done.wait()
    except TimeoutError:
        log.warning("some traces were not exported: the collector did not take them in %g s", seconds)
        # Ends the pause before the next try, so that the thread ends.
        exporter.shutdown()
