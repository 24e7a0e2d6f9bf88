"""Server reflection under both of its names, v1 and v1alpha.

The two protocols differ in their name alone. New clients use v1; grpcio-reflection serves v1alpha.
"""

from collections.abc import Iterable
from typing import Final

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from puna.rpc.intake import Guarded

V1: Final = "grpc.reflection.v1.ServerReflection"


def add_reflection(services: Iterable[str], server: Guarded) -> None:
    """Serve the descriptors of the services to clients."""
    names = (*services, reflection.SERVICE_NAME, V1)
    servicer = reflection.aio.ReflectionServicer(names)
    # The generated adder knows the older name only, so the handler is made by hand and registered twice.
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in (reflection.SERVICE_NAME, V1):
        server.add_registered_method_handlers(name, {"ServerReflectionInfo": handler})
