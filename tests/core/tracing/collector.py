"""A collector: a real OTLP receiver over gRPC, which keeps the spans."""

import asyncio
from contextlib import asynccontextmanager

import grpc
import grpc.aio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


def value(any_value):
    """Return the Python value of an attribute."""
    kind = any_value.WhichOneof("value")
    if kind == "array_value":
        return [value(each) for each in any_value.array_value.values]
    return getattr(any_value, kind)


class Span:
    """A span as it was received."""

    def __init__(self, received, resource):
        self.name, self.kind = received.name, received.kind
        self.id, self.trace = received.span_id.hex(), received.trace_id.hex()
        self.parent, self.state = received.parent_span_id.hex(), received.trace_state
        self.start, self.end = received.start_time_unix_nano, received.end_time_unix_nano
        self.status, self.message = received.status.code, received.status.message
        self.attributes = {each.key: value(each.value) for each in received.attributes}
        self.resource = {each.key: value(each.value) for each in resource.attributes}


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps what it receives."""

    def __init__(self):
        self.spans = []
        self.raw = b""
        self._news = asyncio.Event()

    async def Export(self, request, context):  # noqa: N802 - the name of the RPC
        self.raw += request.SerializeToString()
        for group in request.resource_spans:
            for scope in group.scope_spans:
                self.spans += [Span(each, group.resource) for each in scope.spans]
        self._news.set()
        return trace_service_pb2.ExportTraceServiceResponse()

    def children(self, parent):
        """Return the children of a span, oldest first."""
        return sorted((each for each in self.spans if each.parent == parent.id), key=lambda each: each.start)

    async def until(self, found):
        """Wait until the function returns something true; return it."""
        async with asyncio.timeout(60):
            while not (result := found()):
                self._news.clear()
                await self._news.wait()
        return result

    async def request(self, id_):
        """Wait for the span of the request of this id."""
        return await self.until(
            lambda: next((each for each in self.spans if each.attributes.get("puna.request.id") == id_), None)
        )


@asynccontextmanager
async def collecting(port=0):
    """Run a collector; yield it and its address."""
    server, collector = grpc.aio.server(options=(("grpc.so_reuseport", 0),)), Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield collector, f"http://127.0.0.1:{bound}"
    finally:
        await server.stop(0)
