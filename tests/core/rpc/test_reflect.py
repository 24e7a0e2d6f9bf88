import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, MethodOptions
from grpc_reflection.v1alpha import reflection_pb2

from puna.rpc.server import SERVICES

OTHERS = ("grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


@pytest.fixture(params=["v1", "v1alpha"])
def ask(request, stubs):
    """Asks the server one question of reflection, under either name of the service."""

    async def asked(**fields):
        call = stubs.channel.stream_stream(
            f"/grpc.reflection.{request.param}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )()
        await call.write(reflection_pb2.ServerReflectionRequest(**fields))
        answer = await call.read()
        await call.done_writing()
        call.cancel()
        return answer

    return asked


def files(answer):
    return [FileDescriptorProto.FromString(each) for each in answer.file_descriptor_response.file_descriptor_proto]


async def test_every_listed_service_has_a_definition_with_its_imports(ask):
    listed = [each.name for each in (await ask(list_services="")).list_services_response.service]
    assert listed == sorted((*SERVICES, *OTHERS))
    for name in listed:
        found = files(await ask(file_containing_symbol=name))
        assert name.rpartition(".")[2] in {each.name for each in found[0].service}
        assert {needed for each in found for needed in each.dependency} == {each.name for each in found[1:]}


@pytest.mark.parametrize(
    ("symbol", "file"),
    [
        ("puna.v1.ChatService", "chat"),
        ("puna.v1.ChatService.StreamChat", "chat"),
        ("puna.v1.ChatRequest", "chat"),
        ("puna.v1.ChatRequest.model", "chat"),
        ("puna.v1.StreamEmbedRequest.Item", "embed"),
        ("puna.v1.StreamEmbedRequest.part", "embed"),
        ("puna.v1.JobPhase", "models"),
        ("puna.v1.JOB_PHASE_DONE", "models"),
        ("puna.v1.JobPhase.JOB_PHASE_DONE", "models"),
        ("puna.v1.ToolChoice.Mode", "message"),
        ("puna.v1.ToolChoice.MODE_AUTO", "message"),
        (".puna.v1.ItemError", "error"),
    ],
)
async def test_symbols_of_every_kind(ask, symbol, file):
    assert files(await ask(file_containing_symbol=symbol))[0].name == f"puna/v1/{file}.proto"


async def test_comments_and_options_are_in_the_definitions(ask):
    file = files(await ask(file_by_filename="puna/v1/models.proto"))[0]
    comments = {tuple(each.path): each.leading_comments for each in file.source_code_info.location}
    (service,) = file.service
    index, method = next((i, each) for i, each in enumerate(service.method) if each.name == "ListModels")
    assert comments[6, 0, 2, index].startswith(" ListModels lists the models")
    assert method.options.idempotency_level == MethodOptions.NO_SIDE_EFFECTS


async def test_health_has_all_methods_of_the_server(ask):
    service = files(await ask(file_containing_symbol="grpc.health.v1.Health"))[0].service[0]
    assert {each.name for each in service.method} == {"Check", "List", "Watch"}


@pytest.mark.parametrize(
    "question",
    [
        {"file_containing_symbol": "puna.v1.Nothing"},
        {"file_containing_symbol": ""},
        {"file_by_filename": "puna/v1/nothing.proto"},
        {"file_containing_extension": {"containing_type": "puna.v1.Model", "extension_number": 7}},
        {"all_extension_numbers_of_type": "puna.v1.Nothing"},
        {},
    ],
)
async def test_what_is_not_defined(ask, question):
    answer = await ask(**question)
    assert (answer.error_response.error_code, files(answer)) == (5, [])


async def test_no_message_has_extensions(ask):
    answer = (await ask(all_extension_numbers_of_type="puna.v1.Model")).all_extension_numbers_response
    assert (answer.base_type_name, list(answer.extension_number)) == ("puna.v1.Model", [])
