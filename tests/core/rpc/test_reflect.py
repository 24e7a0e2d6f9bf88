import pytest
from grpc_reflection.v1alpha import reflection_pb2

from puna.rpc.server import SERVICES


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection(stubs, version):
    call = stubs.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    listed = {each.name for each in (await call.read()).list_services_response.service}
    assert listed > {*SERVICES, "grpc.health.v1.Health"}
    await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol="puna.v1.ChatService"))
    assert (await call.read()).file_descriptor_response.file_descriptor_proto
    await call.done_writing()
    call.cancel()
