import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.core.rpc.conftest import backend, batches, registry, serving, settings, stocked, stubs

from puna.auth.gate import Gate
from puna.limits import Limits
from puna.rpc.server import serving as running
from puna.tracing.spans import Spans

__all__ = ["backend", "batches", "registry", "serving", "settings", "stocked", "stubs"]


@pytest.fixture
async def address(serving, batches):
    """A server with a gate, which reads the metadata of calls."""
    async with running(serving, "127.0.0.1:0", gate=Gate(), batches=batches) as bound:
        yield bound


class Recorded:
    """The spans of the process, as soon as they have ended."""

    def __init__(self):
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def all(self):
        return self._exporter.get_finished_spans()

    @property
    def requests(self):
        return [each for each in self.all if each.kind.name == "SERVER"]

    def children(self, parent):
        own = [each for each in self.all if each.parent and each.parent.span_id == parent.context.span_id]
        return sorted(own, key=lambda each: each.start_time)


@pytest.fixture
def limits():
    return Limits(max_trace_stages=6)


@pytest.fixture
def recorded(request, limits):
    found = Recorded()
    spans = Spans(found.provider.get_tracer("test"), limits, with_content=getattr(request, "param", False))
    yield found
    spans.close()
