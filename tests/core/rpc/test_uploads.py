import asyncio
import hashlib

import pytest
from tests.core.serving.asking import until

from puna.errors import DigestMismatchError, InvalidDigestError, InvalidRequestError, TooLargeError
from puna.models.store import ModelStore
from puna.rpc.uploads import received
from puna_client.v1 import models_pb2

DATA = b"hello"
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


def head(**fields):
    return models_pb2.UploadBlobRequest(config=fields)


def chunk(data):
    return models_pb2.UploadBlobRequest(chunk=data)


async def parts(*messages):
    for each in messages:
        if each is ...:
            await asyncio.sleep(30)
        else:
            yield each


@pytest.fixture
def blobs(tmp_path):
    return ModelStore(tmp_path / "models").blobs


def files(blobs):
    return sorted(path.name for path in blobs.folder.iterdir()) if blobs.folder.exists() else []


async def test_a_blob_is_stored_once(blobs):
    sent = [head(digest=DIGEST, size_bytes=5), chunk(b"he"), chunk(b"llo")]
    stored = await received(blobs, parts(*sent))
    assert (stored.digest, stored.size, stored.created) == (DIGEST, 5, True)
    again = await received(blobs, parts(sent[0], ...))
    assert (again.size, again.created) == (5, False)


@pytest.mark.parametrize(
    ("messages", "error", "text"),
    [
        ((), InvalidRequestError, "the first message must be `config`"),
        ((chunk(DATA),), InvalidRequestError, "the first message must be `config`"),
        ((head(digest=""), chunk(DATA)), InvalidDigestError, ""),
        ((head(digest="sha256:" + "0" * 64), chunk(DATA)), DigestMismatchError, ""),
        (
            (head(digest=DIGEST, size_bytes=11),),
            TooLargeError,
            "the blob is larger than 10 bytes; PUNA_MAX_UPLOAD_BYTES",
        ),
        ((head(digest=DIGEST), chunk(b"x" * 6), chunk(b"x" * 5)), TooLargeError, "the blob is larger than 10 bytes"),
    ],
)
async def test_refused_uploads_leave_no_file(blobs, messages, error, text):
    with pytest.raises(error) as caught:
        await received(blobs, parts(*messages), 10)
    assert str(caught.value).startswith(text)
    assert files(blobs) == []


async def test_a_cancelled_upload_leaves_no_file(blobs):
    task = asyncio.create_task(received(blobs, parts(head(digest=DIGEST), chunk(DATA), ...)))
    await until(lambda: files(blobs))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert files(blobs) == []


async def test_a_disk_without_room_refuses_before_anything_is_sent_and_reads_the_rest(blobs):
    read = []

    async def sending():
        yield head(digest=DIGEST, size_bytes=1 << 60)
        for each in range(3):
            read.append(each)
            yield chunk(DATA)

    with pytest.raises(OSError, match="No space left"):
        await received(blobs, sending())
    assert read == [0, 1, 2]
    assert files(blobs) == []
