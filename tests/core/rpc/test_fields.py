"""Errors name the field that is wrong, and digests have one form in them."""

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

from puna_client.v1 import chat_pb2, models_pb2

DIGITS = "a" * 64
FILE = {"name": "a.gguf", "digest": f"sha256-{DIGITS}"}
BAD_FILE = {"name": "a.gguf", "digest": "zz"}


async def details(call):
    """Read a call that fails; return its ErrorInfo and the path of the wrong field."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    status = Status.FromString(dict(raised.value.trailing_metadata())["grpc-status-details-bin"])
    info, bad = ErrorInfo(), BadRequest()
    for each in status.details:
        _ = each.Unpack(info) or each.Unpack(bad)
    assert "/blobs/" not in raised.value.details()
    return info, next((each.field for each in bad.field_violations), "")


def create(**fields):
    return "CreateModel", models_pb2.CreateModelRequest(name="x", **fields)


@pytest.mark.parametrize(
    ("method", "request_", "reason", "field"),
    [
        ("StatBlob", models_pb2.StatBlobRequest(digest="x"), "INVALID_DIGEST", "digest"),
        ("GetModel", models_pb2.GetModelRequest(), "MODEL_REQUIRED", "name"),
        ("GetModel", models_pb2.GetModelRequest(name="a b"), "INVALID_MODEL_NAME", "name"),
        ("CopyModel", models_pb2.CopyModelRequest(source="a b", destination="c"), "INVALID_MODEL_NAME", "source"),
        ("CopyModel", models_pb2.CopyModelRequest(source="plain", destination=""), "INVALID_MODEL_NAME", "destination"),
        (*create(files=[FILE], has_files=True), "BLOB_NOT_FOUND", "files"),
        (*create(files=[BAD_FILE], has_files=True), "INVALID_DIGEST", "files"),
        (*create(from_model="plain", adapters=[FILE]), "BLOB_NOT_FOUND", "adapters"),
        (*create(from_model="plain", draft_files=[FILE]), "BLOB_NOT_FOUND", "draft_files"),
    ],
)
async def test_the_field_is_named(stubs, method, request_, reason, field):
    info, found = await details(getattr(stubs.models, method)(request_))
    assert (info.reason, found) == (reason, field)


async def test_the_field_of_a_conversation_is_called_model(stubs):
    for name, reason in (("", "MODEL_REQUIRED"), ("a b", "INVALID_MODEL_NAME")):
        info, field = await details(stubs.chat.Chat(chat_pb2.ChatRequest(model=name)))
        assert (info.reason, field) == (reason, "model")


@pytest.mark.parametrize(
    ("method", "request_", "names"),
    [
        ("StatBlob", models_pb2.StatBlobRequest(digest=f"sha256-{DIGITS}"), ["digest"]),
        (*create(files=[FILE], has_files=True), ["digest"]),
        (*create(from_model="plain", adapters=[FILE]), ["digest"]),
        (
            "UploadBlob",
            [{"config": {"digest": f"sha256-{DIGITS}"}}, {"chunk": b"x"}],
            ["expected", "got"],
        ),
    ],
)
async def test_digests_have_one_form(stubs, method, request_, names):
    given = request_
    if isinstance(request_, list):
        given = iter([models_pb2.UploadBlobRequest(**each) for each in request_])
    info, _ = await details(getattr(stubs.models, method)(given))
    for name in names:
        algorithm, _, digits = info.metadata[name].partition(":")
        assert (algorithm, len(digits)) == ("sha256", 64)
