"""Every RPC with messages made of its descriptor, honest and not: there is an answer or a refusal, never a failure."""

import importlib
import json
import pkgutil
import urllib.error
import urllib.request

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st
from tests.hostile import values
from tests.hostile.fuzz import fuzz
from tests.hostile.target import check, recovered, target

import puna_client.v1

PATIENCE = 2.0
"""Seconds until a client gives up: what is hostile may ask for an answer without end."""
MODULES = (each.name for each in pkgutil.iter_modules(puna_client.v1.__path__, "puna_client.v1."))
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for file in (importlib.import_module(name) for name in MODULES if name.endswith("_pb2"))
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
FAILURES = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS)
CRASHES = ("BACKEND_CRASHED", "BACKEND_FAILED", "MODEL_DAMAGED", "INTERNAL")
CHANGING = ("DeleteModel", "CopyModel", "CreateModel", "ImportModels")
"""Calls that may take a model away that others need."""
PATHS = ("/dev/zero", "/dev/stdin", "/proc/self/mem", "/etc/passwd", "/", "", "x\x00y", "../..", "a" * 5000)
LARGEST = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
BY_NAME = {
    "options_json": values.options(),
    "json_schema": values.schemas,
    "schema_json": values.schemas,
    "role": st.sampled_from(("user", "system", "assistant", "tool", "x")),
    "max_output_tokens": st.sampled_from((0, 1, 2, 5, -1, 2**31 - 1)),
    "digest": st.sampled_from((values.DIGEST, "sha256:", "sha256:" + "A" * 64, "../x")),
    "paths": st.sampled_from(PATHS),
    "path": st.sampled_from(PATHS),
    "context_length": st.sampled_from((64, -1, 2**31 - 1)),
    "batch_size": st.sampled_from((64, -1, 2**31 - 1)),
    "threads": st.sampled_from((1, -1, 2**31 - 1)),
}
SEED = {
    "messages": [{"role": "user", "content": "a"}],
    "inputs": ["a"],
    "text": "a",
    "query": "a",
    "documents": ["a", "b"],
    "options": {"sampling": {"max_output_tokens": 3}},
}
"""The fields of an honest request."""


def scalar(field, changing):
    """Return the values of a field that is no message."""
    if field.name in ("model", "name", "source", "destination", "from_model"):
        return st.sampled_from(values.OTHERS if changing else (*values.NAMES * 8, *values.OTHERS)).map(clean)
    if field.name in BY_NAME:
        return BY_NAME[field.name].map(lambda value: clean(value) if isinstance(value, str) else value)
    kind = field.cpp_type
    if kind in LARGEST:
        low, high = LARGEST[kind]
        return st.sampled_from((0, 1, 2, 7, low, high)) | st.integers(low, high)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return st.sampled_from((*(each.number for each in field.enum_type.values), -1, 99, 2**31 - 1))
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        width = 64 if kind == FieldDescriptor.CPPTYPE_DOUBLE else 32
        return st.sampled_from((0.0, 0.8, 1.0, -1.0, float("inf"), float("nan"))) | st.floats(width=width)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=60)
    texts = st.sampled_from(values.STRINGS) | st.text(max_size=20)
    return (values.anything | texts if field.name.endswith("_json") else texts).map(clean)


def clean(text):
    """Return a text that a message can hold."""
    return text.encode("utf-8", "replace").decode()


@st.composite
def contents(draw, descriptor, changing=False, depth=0):
    """Fields of a message as a dict; of an honest one's fields most are there."""
    out = {}
    for field in descriptor.fields:
        wanted = depth == 0 and field.name in ("model", "name", *SEED)
        slow = field.name == "runtime"  # a model is loaded anew for it
        if draw(st.integers(0, 9)) >= (9 if wanted else 3 if depth < 3 and not slow else 1):
            continue
        if field.containing_oneof is not None and any(each.name in out for each in field.containing_oneof.fields):
            continue
        if wanted and field.name in SEED and draw(st.booleans()):
            if field.cpp_type != FieldDescriptor.CPPTYPE_MESSAGE or field.name in ("messages", "options"):
                out[field.name] = SEED[field.name]
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key, value = (field.message_type.fields_by_name[each] for each in ("key", "value"))
            keys = st.sampled_from(("llama_cpp", "", "x")) if field.name.endswith("_json") else scalar(key, changing)
            texts = values.anything.map(clean) if field.name.endswith("_json") else scalar(value, changing)
            out[field.name] = draw(st.dictionaries(keys, texts, max_size=2))
            continue
        inner = contents(field.message_type, changing, depth + 1) if field.message_type else scalar(field, changing)
        out[field.name] = draw(st.lists(inner, max_size=3) if field.is_repeated else inner)
    return out


def build(descriptor, fields):
    """Return the message; what Python refuses to put into one is left out."""
    return GetMessageClass(descriptor)(**fields)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with target(tmp_path_factory.mktemp("home")) as running:
        with grpc.insecure_channel(running.grpc) as running.channel:
            yield running
        recovered(running)


def call(server, path, requests):
    """Call, and return the error that there is; `requests` are bytes."""
    method = METHODS[path]
    stream_in, stream_out = method.client_streaming, method.server_streaming
    kind = f"{'stream' if stream_in else 'unary'}_{'stream' if stream_out else 'unary'}"
    stub = getattr(server.channel, kind)(path)
    try:
        seconds = 0.2 if method.name == "WatchLoad" else PATIENCE  # which goes on for ever
        answer = stub(iter(requests) if stream_in else requests[0], timeout=seconds)
        for _ in answer if stream_out else ():
            pass
    except grpc.RpcError as error:
        return error
    return None


def attack(server, path, requests):
    """Call. Fail unless the server is well afterwards and the status is one that may be."""
    error = call(server, path, requests)
    check(server)
    if error is None:
        return
    assert error.code() not in FAILURES, (error.code(), error.details())
    status = Status()
    status.ParseFromString(dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b""))
    for detail in status.details:
        info = ErrorInfo()
        assert not (detail.Unpack(info) and info.reason in CRASHES), (info.reason, error.details())


@pytest.mark.parametrize("path", sorted(METHODS))
@fuzz(examples=10, shrink=False)
@given(data=st.data())
def test_messages(server, path, data):
    method = METHODS[path]
    several = 3 if method.client_streaming else 1
    fields = data.draw(
        st.lists(contents(method.input_type, method.name in CHANGING), min_size=several, max_size=several)
    )
    attack(server, path, [build(method.input_type, each).SerializeToString() for each in fields])


def test_every_service_is_fuzzed():
    assert len(METHODS) > 30
    assert json.dumps(SEED)


@pytest.mark.parametrize("path", sorted(METHODS))
@fuzz(examples=2, shrink=False)
@given(data=st.data())
def test_bytes(server, path, data):
    method = METHODS[path]
    fields = data.draw(contents(method.input_type, method.name in CHANGING))
    message = build(method.input_type, fields).SerializeToString()
    attack(server, path, [data.draw(values.mutated(message))])


@pytest.mark.parametrize("path", sorted(path for path, method in METHODS.items() if not method.client_streaming))
@fuzz(examples=2, shrink=False)
@given(data=st.data())
def test_json_over_http(server, path, data):
    """A unary call of Connect; a stream's envelope is as wrong as any other body."""
    method = METHODS[path]
    fields = data.draw(contents(method.input_type, method.name in CHANGING))
    message = build(method.input_type, fields)
    try:
        text = json_format.MessageToJson(message)
    except json_format.SerializeToJsonError:  # an enum, time or duration that JSON cannot write
        text = "{}"
    body = data.draw(st.sampled_from((text.encode(), None))) or data.draw(values.mutated(text.encode()))
    headers = {"Content-Type": "application/json", "Connect-Timeout-Ms": "2000", "Connect-Protocol-Version": "1"}
    request = urllib.request.Request(server.url + path, body, headers)
    status, said = 200, b""
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        with error:
            status, said = error.code, error.read()
    check(server)
    assert status not in (500, 501) or json.loads(said)["code"] == "unimplemented", said
