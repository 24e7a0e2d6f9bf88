"""A gRPC client that has no generated code and learns the server's API by reflection."""

import json

import grpc
import pytest
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


@pytest.fixture
def pool(channel):
    return descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))


def call(channel, pool, service, method, **fields):
    rpc = pool.FindServiceByName(service).FindMethodByName(method)
    request, response = (message_factory.GetMessageClass(each) for each in (rpc.input_type, rpc.output_type))
    make = channel.unary_stream if rpc.server_streaming else channel.unary_unary
    stub = make(
        f"/{service}/{method}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=response.FromString,
    )
    return stub(json_format.ParseDict(fields, request()), timeout=60)


def test_generate_streams(channel, pool):
    answers = list(
        call(channel, pool, "puna.v1.GenerateService", "StreamGenerate", model="llamita", text="Why is the sky blue?")
    )
    text = "".join(delta.text for answer in answers for delta in answer.deltas)
    assert "blue" in text
    assert [answer.HasField("done") for answer in answers] == [False] * (len(answers) - 1) + [True]
    assert answers[-1].done.finish.usage.output_tokens > 10


def test_chat_answers_in_one_message(channel, pool):
    messages = [{"role": "user", "content": "My name is Clara. What is my name?"}]
    answer = call(channel, pool, "puna.v1.ChatService", "Chat", model="llamita", messages=messages)
    assert answer.message.role == "assistant"
    assert answer.message.content


def test_the_arguments_of_a_tool_call_stream(channel, pool):
    parameters = '{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}'
    request = {
        "model": "llamita",
        "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
        "tools": [{"name": "get_weather", "description": "Get the weather in a city", "parameters_json": parameters}],
        "options": {"sampling": {"temperature": 0}},
        "tool_call_deltas": True,
    }
    answers = list(call(channel, pool, "puna.v1.ChatService", "StreamChat", **request))
    deltas = [delta for answer in answers for delta in answer.deltas]
    sent = [part for delta in deltas for part in delta.tool_call_deltas]
    (made,) = [each for delta in deltas for each in delta.tool_calls]
    assert (made.name, json.loads(made.arguments_json)) == ("get_weather", {"city": "Paris"})
    assert len(sent) > 1
    assert [(each.index, each.id, each.name) for each in sent] == [
        (0, made.id, made.name),
        *[(0, "", "")] * (len(sent) - 1),
    ]
    assert "".join(each.arguments_json for each in sent) == made.arguments_json


def test_errors_carry_a_reason(channel, pool):
    from google.rpc import error_details_pb2, status_pb2

    with pytest.raises(grpc.RpcError) as caught:
        call(
            channel, pool, "puna.v1.ChatService", "Chat", model="nowhere", messages=[{"role": "user", "content": "Hi"}]
        )
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == "model 'nowhere' not found"
    (packed,) = [value for key, value in caught.value.trailing_metadata() if key == "grpc-status-details-bin"]
    info = error_details_pb2.ErrorInfo()
    status_pb2.Status.FromString(packed).details[0].Unpack(info)
    assert (info.domain, info.reason) == ("puna", "MODEL_NOT_FOUND")


def test_health(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "puna.v1.GenerateService", "puna.v1.ChatService"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("version", ["v1alpha", "v1"])
def test_reflection_lists_the_services_under_both_versions(channel, version):
    stub = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    request = reflection_pb2.ServerReflectionRequest(list_services="*")
    (answer,) = list(stub(iter([request]), timeout=10))
    names = {each.name for each in answer.list_services_response.service}
    assert {f"puna.v1.{name}Service" for name in ("Generate", "Chat", "Embed", "Models")} <= names
