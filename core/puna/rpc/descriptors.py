"""The definitions of all services as reflection serves them: file by file, with comments, and found by any symbol.

The generated Python code has the definitions without their comments, so those of puna.v1 are kept in a file beside
this module, which tools/gen_proto.py writes.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from puna.rpc.health_list import HealthListRequest, HealthListResponse

_RECORDED: Final = Path(__file__).with_name("descriptors.binpb")


class Descriptors:
    """Files of definitions with everything that they import."""

    def __init__(self, files: Iterator[FileDescriptorProto]) -> None:
        self._files: dict[str, FileDescriptorProto] = {}
        self._names: dict[str, str] = {}
        """Names of files by the full names of what they define."""
        for file in files:
            self._add(file)

    def _add(self, file: FileDescriptorProto) -> None:
        self._files[file.name] = file
        self._names |= dict.fromkeys(_symbols(file), file.name)
        for name in file.dependency:
            if name not in self._files and not name.startswith("puna/"):
                self._add(_copied(descriptor_pool.Default().FindFileByName(name)))

    def by_name(self, name: str) -> list[bytes]:
        """Return an encoded file and all files that it imports, itself first; empty if there is no such file."""
        return [self._files[each].SerializeToString() for each in self._needed(name)] if name in self._files else []

    def by_symbol(self, symbol: str) -> list[bytes]:
        """Return the file that defines a message, field, enum, value, service or method, as `by_name` does."""
        return self.by_name(self._names.get(symbol.removeprefix("."), ""))

    def _needed(self, name: str) -> list[str]:
        found = [name]
        for each in found:
            found += [one for one in self._files[each].dependency if one not in found]
        return found


@cache
def descriptors() -> Descriptors:
    """Return the definitions of all services of the server. They are read at the first call."""
    recorded = FileDescriptorSet.FromString(_RECORDED.read_bytes()).file
    return Descriptors(iter([*recorded, _health(), *_reflection()]))


def _copied(descriptor: Any) -> FileDescriptorProto:  # noqa: ANN401 - the stubs of two libraries disagree
    file = FileDescriptorProto()
    descriptor.CopyToProto(file)
    return file


def _health() -> FileDescriptorProto:
    file = _copied(health_pb2.DESCRIPTOR)
    (service,) = file.service
    # Older versions of the library do not define the method, which the server has in any case.
    if "List" not in {each.name for each in service.method}:
        for message in (HealthListRequest, HealthListResponse):
            message.DESCRIPTOR.CopyToProto(file.message_type.add())
        package = f".{file.package}"
        service.method.add(
            name="List", input_type=f"{package}.HealthListRequest", output_type=f"{package}.HealthListResponse"
        )
    return file


def _reflection() -> Iterator[FileDescriptorProto]:
    """Yield reflection itself under both of its names. The library defines v1alpha alone; v1 differs in its name."""
    old = _copied(reflection_pb2.DESCRIPTOR)
    yield old
    new = FileDescriptorProto()
    new.CopyFrom(old)
    new.name, new.package = old.name.replace("v1alpha", "v1"), old.package.replace("v1alpha", "v1")
    for message in new.message_type:
        for field in message.field:
            field.type_name = field.type_name.replace("v1alpha", "v1")
    for method in new.service[0].method:
        method.input_type = method.input_type.replace("v1alpha", "v1")
        method.output_type = method.output_type.replace("v1alpha", "v1")
    yield new


def _symbols(file: FileDescriptorProto) -> Iterator[str]:
    """Yield the full names of everything that a file defines."""
    scope = f"{file.package}." if file.package else ""
    for message in file.message_type:
        yield from _of_message(message, scope)
    for enum in file.enum_type:
        yield from _of_enum(enum, scope)
    for service in file.service:
        yield scope + service.name
        yield from (f"{scope}{service.name}.{method.name}" for method in service.method)


def _of_message(message: DescriptorProto, scope: str) -> Iterator[str]:
    name = scope + message.name
    yield name
    yield from (f"{name}.{field.name}" for field in message.field)
    yield from (f"{name}.{oneof.name}" for oneof in message.oneof_decl)
    for nested in message.nested_type:
        yield from _of_message(nested, f"{name}.")
    for enum in message.enum_type:
        yield from _of_enum(enum, f"{name}.")


def _of_enum(enum: EnumDescriptorProto, scope: str) -> Iterator[str]:
    yield scope + enum.name
    # By the rules of protobuf the values stand beside their enum and not inside. Some clients look for them inside.
    yield from (scope + value.name for value in enum.value)
    yield from (f"{scope}{enum.name}.{value.name}" for value in enum.value)
