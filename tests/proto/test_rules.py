"""Rules of the wire: names as buf's STANDARD has them, and a comment on everything that a reader can see."""

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from puna.auth.permissions import Permission, needed

PROTO = Path(__file__).parents[2] / "proto"
FILES = sorted(path.relative_to(PROTO).as_posix() for path in PROTO.rglob("*.proto"))
# A unary call and its streaming twin share one request; buf.yaml names the same exception.
TWINS = {
    "StreamGenerate": "GenerateRequest",
    "StreamChat": "ChatRequest",
    "StreamModel": "GetModelRequest",
    "StreamVectors": "EmbedRequest",
}


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    out = tmp_path_factory.mktemp("descriptors") / "all.binpb"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", "--include_source_info", f"-o{out}", *FILES]
    subprocess.run(command, check=True, timeout=60)
    return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file


@pytest.mark.parametrize("name", FILES)
def test_everything_has_a_comment(described, name):
    file = next(each for each in described if each.name == name)
    commented = {tuple(each.path) for each in file.source_code_info.location if each.leading_comments.strip()}
    # Even positions of a path say what follows: 4 message, 5 enum, 6 service; within them 2 field/value/method, 3
    # nested message, 4 nested enum. Oneofs speak for themselves.
    wanted = set()

    def message(node, path):
        wanted.add(path)
        wanted.update((*path, 2, i) for i in range(len(node.field)))
        for i, nested in enumerate(node.nested_type):
            if not nested.options.map_entry:
                message(nested, (*path, 3, i))
        for i, nested in enumerate(node.enum_type):
            enum(nested, (*path, 4, i))

    def enum(node, path):
        wanted.add(path)
        wanted.update((*path, 2, i) for i in range(len(node.value)))

    for i, node in enumerate(file.message_type):
        message(node, (4, i))
    for i, node in enumerate(file.enum_type):
        enum(node, (5, i))
    for i, node in enumerate(file.service):
        wanted.add((6, i))
        wanted.update((6, i, 2, j) for j in range(len(node.method)))
    assert wanted - commented == set()


def test_names_follow_the_standard(described):
    for file in described:
        assert file.package == file.name.rpartition("/")[0].replace("/", ".")
        for service in file.service:
            assert service.name.endswith("Service")
            for method in service.method:
                assert method.input_type.rpartition(".")[2] == TWINS.get(method.name, f"{method.name}Request")
                assert method.output_type.rpartition(".")[2] == f"{method.name}Response"
        for enum in file.enum_type:
            assert enum.value[0].name.endswith("_UNSPECIFIED")
            assert enum.value[0].number == 0


def test_lists_come_in_pages(described):
    public = [file for file in described if file.package == "puna.v1"]
    fields = {message.name: {each.name for each in message.field} for file in public for message in file.message_type}
    methods = [method.name for file in public for service in file.service for method in service.method]
    lists = [name for name in methods if name.startswith("List")]
    assert len(lists) > 4
    for name in lists:
        assert {"page_size", "page_token"} <= fields[f"{name}Request"], name
        assert "next_page_token" in fields[f"{name}Response"], name


def test_methods_that_only_read_say_so(described):
    """Clients and proxies may repeat, cache and send such calls by GET."""
    levels = descriptor_pb2.MethodOptions
    for service in (service for file in described if file.package == "puna.v1" for service in file.service):
        for method in service.method:
            reads = needed(f"/puna.v1.{service.name}/{method.name}") is Permission.READ
            only_looks = method.name.startswith(("List", "Get", "Stat", "Watch"))
            if reads or only_looks:
                assert method.options.idempotency_level == levels.NO_SIDE_EFFECTS, method.name


def test_the_four_services_of_the_card_exist(described):
    names = {service.name for file in described for service in file.service}
    assert {"GenerateService", "ChatService", "EmbedService", "ModelsService"} <= names
