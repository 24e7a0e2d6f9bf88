"""The messages of the List method of grpc.health.v1, which grpcio-health-checking has since 1.85 only.

Clients of any version can call the method. The messages are built here for older versions of the library, in a pool of
their own, since two definitions of one file cannot be in the same pool.
"""

from typing import Any, Final

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2

_PACKAGE: Final = "grpc.health.v1"


def _built() -> tuple[Any, Any]:
    """Return the classes of request and response, with the field numbers of grpc.health.v1."""
    file = FileDescriptorProto(name="grpc/health/v1/list.proto", package=_PACKAGE, syntax="proto3")
    file.message_type.add(name="HealthListRequest")
    answer = file.message_type.add(name="HealthCheckResponse")
    # An enum is encoded like an int32, so its definition is not needed here.
    answer.field.add(name="status", number=1, type=FieldDescriptorProto.TYPE_INT32, label=_OPTIONAL)
    listed = file.message_type.add(name="HealthListResponse")
    entry = listed.nested_type.add(name="StatusesEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=FieldDescriptorProto.TYPE_STRING, label=_OPTIONAL)
    entry.field.add(
        name="value", number=2, type=_MESSAGE, type_name=f".{_PACKAGE}.HealthCheckResponse", label=_OPTIONAL
    )
    name = f".{_PACKAGE}.HealthListResponse.StatusesEntry"
    label = FieldDescriptorProto.LABEL_REPEATED
    listed.field.add(name="statuses", number=1, type=_MESSAGE, type_name=name, label=label)
    pool = DescriptorPool()
    pool.Add(file)
    request, response = (
        GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{each}"))
        for each in ("HealthListRequest", "HealthListResponse")
    )
    return request, response


_OPTIONAL: Final = FieldDescriptorProto.LABEL_OPTIONAL
_MESSAGE: Final = FieldDescriptorProto.TYPE_MESSAGE
_names: Final = ("HealthListRequest", "HealthListResponse")
# By name, since type checkers know the stubs of one version of the library only.
_made: Final = [getattr(health_pb2, name) for name in _names if hasattr(health_pb2, name)] or _built()
HealthListRequest: Any = _made[0]
HealthListResponse: Any = _made[1]
