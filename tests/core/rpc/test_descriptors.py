import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from puna.rpc.descriptors import descriptors
from puna_client.v1 import (
    batch_pb2,
    chat_pb2,
    embed_pb2,
    error_pb2,
    generate_pb2,
    message_pb2,
    models_pb2,
    options_pb2,
    rank_pb2,
    server_pb2,
    tokenize_pb2,
    usage_pb2,
)

MODULES = (
    *(batch_pb2, chat_pb2, embed_pb2, error_pb2, generate_pb2, message_pb2),
    *(models_pb2, options_pb2, rank_pb2, server_pb2, tokenize_pb2, usage_pb2),
)


def without_json_names(file):
    """The compiler writes the JSON name of each field into a set of files; the generated code leaves them out."""
    for message in file.message_type:
        strip(message)
    return file


def strip(message):
    for field in message.field:
        field.ClearField("json_name")
    for nested in message.nested_type:
        strip(nested)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.DESCRIPTOR.name)
def test_the_definitions_are_those_of_the_code(module):
    recorded = FileDescriptorProto.FromString(descriptors().by_name(module.DESCRIPTOR.name)[0])
    assert any(each.leading_comments for each in recorded.source_code_info.location)
    recorded.ClearField("source_code_info")
    of_code = FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(of_code)
    assert without_json_names(recorded) == without_json_names(of_code)


def test_a_file_comes_with_all_that_it_imports_once():
    found = [FileDescriptorProto.FromString(each) for each in descriptors().by_name("puna/v1/batch.proto")]
    names = [each.name for each in found]
    assert names[0] == "puna/v1/batch.proto"
    assert len(set(names)) == len(names)
    assert {"puna/v1/usage.proto", "google/protobuf/timestamp.proto", "google/protobuf/duration.proto"} <= set(names)
