import hashlib

import grpc
import pytest

from puna_client.v1 import models_pb2

DIGEST = "sha256:" + hashlib.sha256(b"x").hexdigest()


@pytest.mark.parametrize(
    ("code", "reason", "status"),
    [
        (grpc.StatusCode.NOT_FOUND, "BLOB_NOT_FOUND", 404),
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_DIGEST", 400),
    ],
)
async def test_a_blob_that_is_not_there(core, client, fail, code, reason, status):
    core.script("StatBlob", fail(code, reason, "no"))
    async with client.head(f"/api/blobs/{DIGEST}") as response:
        assert response.status == status
        assert response.headers["Content-Type"] == "application/json; charset=utf-8"


async def test_a_blob_that_is_there(core, client):
    core.script("StatBlob", models_pb2.StatBlobResponse(size_bytes=1))
    async with client.head(f"/api/blobs/{DIGEST}") as response:
        assert response.status == 200
        assert "Content-Type" not in response.headers
        assert "Content-Length" not in response.headers
    async with client.post(f"/api/blobs/{DIGEST}", data=b"anything") as response:
        assert response.status == 200


async def test_an_upload_travels_in_pieces(core, client, fail):
    core.script("StatBlob", fail(grpc.StatusCode.NOT_FOUND, "BLOB_NOT_FOUND", "no"))
    core.script("UploadBlob", models_pb2.UploadBlobResponse(size_bytes=1, created=True))

    async def body():
        for _ in range(5):
            yield b"x" * 600_000

    async with client.post(f"/api/blobs/{DIGEST}", data=body()) as response:
        assert (response.status, await response.text()) == (201, "")
    first, *chunks = core.requests[1]
    assert first.config.digest == DIGEST
    assert b"".join(each.chunk for each in chunks) == b"x" * 3_000_000
    assert max(len(each.chunk) for each in chunks) <= 1024 * 1024


async def test_an_upload_that_does_not_match(core, client, fail):
    text = 'digest mismatch, expected "a", got "b"'
    core.script("StatBlob", fail(grpc.StatusCode.NOT_FOUND, "BLOB_NOT_FOUND", "no"))
    core.script("UploadBlob", fail(grpc.StatusCode.INVALID_ARGUMENT, "DIGEST_MISMATCH", text))
    async with client.post(f"/api/blobs/{DIGEST}", data=b"y") as response:
        assert response.status == 400
        assert await response.json() == {"error": text}
