"""Server reflection under both of its names, v1 and v1alpha.

The two protocols differ in their name alone. grpcurl and ghz ask for v1 first and fall back to v1alpha; older clients
know v1alpha only. The servicer of grpcio-reflection finds neither methods nor comments, which `grpcurl describe` and
ghz need, so its messages are used and its servicer is not.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final

import grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from puna.rpc.descriptors import descriptors
from puna.rpc.error_boundary import Context
from puna.rpc.intake import Guarded

_NAMES: Final = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


def add_reflection(services: Iterable[str], server: Guarded) -> None:
    """Serve the descriptors of the services to clients."""
    names = sorted((*services, *_NAMES))

    async def answer(requests: AsyncIterator[ServerReflectionRequest], context: Context) -> None:
        async for request in requests:
            await context.write(respond(request, names))

    handler = grpc.stream_stream_rpc_method_handler(
        answer,
        request_deserializer=ServerReflectionRequest.FromString,
        response_serializer=ServerReflectionResponse.SerializeToString,
    )
    for name in _NAMES:
        server.add_registered_method_handlers(name, {"ServerReflectionInfo": handler})


def respond(request: ServerReflectionRequest, services: Sequence[str]) -> ServerReflectionResponse:
    """Return the answer to one request. `services` are the names that are listed."""
    kind = request.WhichOneof("message_request")
    response = ServerReflectionResponse(valid_host=request.host, original_request=request)
    if kind == "list_services":
        response.list_services_response.service.extend(reflection_pb2.ServiceResponse(name=name) for name in services)
        return response
    found: list[bytes] = []
    if kind == "file_by_filename":
        found = descriptors().by_name(request.file_by_filename)
    elif kind == "file_containing_symbol":
        found = descriptors().by_symbol(request.file_containing_symbol)
    # No definition has extensions, so the list of a known type is empty.
    elif kind == "all_extension_numbers_of_type" and descriptors().by_symbol(request.all_extension_numbers_of_type):
        response.all_extension_numbers_response.base_type_name = request.all_extension_numbers_of_type
        return response
    response.file_descriptor_response.file_descriptor_proto.extend(found)
    if not found:
        response.error_response.error_code = grpc.StatusCode.NOT_FOUND.value[0]
        response.error_response.error_message = "there is no such definition"
    return response
