import json

import aiohttp
import grpc
import pytest
from tests.rest_bridge.conftest import Fail

from puna_client.v1 import batch_pb2, files_pb2

FILE = files_pb2.CreateFileResponse(
    file=files_pb2.File(
        id="file-1",
        name="a.jsonl",
        purpose="batch",
        size_bytes=3,
        create_time={"seconds": 5},
        delete_time={"seconds": 9},
    )
)
HEX = "0123456789abcdef" * 2
ENDED = batch_pb2.Batch(
    id=f"batch_{HEX}",
    state=batch_pb2.BATCH_STATE_DONE,
    request_count=2,
    completed_count=1,
    failed_count=1,
    answer_bytes=10,
    error_bytes=20,
    create_time={"seconds": 3},
    end_time={"seconds": 7},
    delete_time={"seconds": 11},
    client_data=b'{"endpoint":"/v1/completions","input_file_id":"file-1"}',
)
MISSING = Fail(grpc.StatusCode.NOT_FOUND, "NOT_FOUND", "there is no such thing")


def form(**fields):
    """A form with boundary B. Its file has bytes, its other fields have texts."""
    parts = b""
    for name, value in fields.items():
        file = '; filename="a.jsonl"' if name == "file" else ""
        value = value if isinstance(value, bytes) else value.encode()
        parts += f'--B\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + value + b"\r\n"
    return parts + b"--B--\r\n"


async def post(client, body):
    headers = {"Content-Type": "multipart/form-data; boundary=B"}
    async with client.post("/v1/files", data=body, headers=headers) as response:
        return response.status, json.loads(await response.text())


async def get(client, path, method="GET"):
    async with client.request(method, path) as response:
        return response.status, await response.text()


async def test_an_upload_is_stored_in_chunks(core, client):
    core.script("CreateFile", FILE)
    data = bytes(range(256)) * 4000
    status, answer = await post(client, form(purpose="batch", file=data))
    assert (status, answer) == (
        200,
        {
            "id": "file-1",
            "object": "file",
            "bytes": 3,
            "created_at": 5,
            "expires_at": 9,
            "filename": "a.jsonl",
            "purpose": "batch",
            "status": "processed",
        },
    )
    first, *chunks = core.requests[0]
    assert (first.config.name, first.config.purpose) == ("a.jsonl", "batch")
    assert b"".join(each.chunk for each in chunks) == data
    assert max(len(each.chunk) for each in chunks) <= 1 << 18


@pytest.mark.parametrize("fields", [{"file": b"x", "purpose": "assistants"}, {"file": b"x"}])
async def test_only_files_for_batches_are_stored(core, client, fields):
    core.script("CreateFile", FILE)
    status, answer = await post(client, form(**fields))
    assert (status, answer["error"]["message"]) == (400, "purpose must be 'batch'")


async def test_a_form_without_a_file_is_refused(client):
    status, answer = await post(client, form(purpose="batch"))
    assert (status, answer["error"]["message"]) == (400, "file is required")


async def test_an_error_of_the_core_keeps_its_status(core, client):
    core.script("CreateFile", Fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_LARGE", "too many files"))
    status, answer = await post(client, form(purpose="batch", file=b"x"))
    assert (status, answer["error"]["message"]) == (413, "too many files")


async def test_the_results_of_a_batch_are_files(core, client):
    core.script("GetBatch", batch_pb2.GetBatchResponse(batch=ENDED))
    for name, size, file_name in (("output", 10, "output"), ("errors", 20, "errors")):
        status, text = await get(client, f"/v1/files/file-{name}-{HEX}")
        found = json.loads(text)
        assert (status, found["bytes"], found["purpose"]) == (200, size, "batch_output")
        assert (found["created_at"], found["filename"]) == (7, f"batch_{HEX}_{file_name}.jsonl")
    assert {each.id for each in core.requests} == {f"batch_{HEX}"}


async def test_a_batch_that_runs_has_no_result_files(core, client):
    running = batch_pb2.Batch()
    running.CopyFrom(ENDED)
    running.ClearField("end_time")
    core.script("GetBatch", batch_pb2.GetBatchResponse(batch=running))
    for path in (f"/v1/files/file-output-{HEX}", f"/v1/files/file-output-{HEX}/content"):
        assert (await get(client, path))[0] == 404


async def test_results_are_read_and_deleted(core, client):
    core.script("GetBatch", batch_pb2.GetBatchResponse(batch=ENDED))
    core.script("DeleteBatchResults", batch_pb2.DeleteBatchResultsResponse(batch=ENDED))
    error = {"code": 5, "reason": "MODEL_NOT_FOUND", "message": "model 'm' not found"}
    results = [batch_pb2.StreamBatchResultsResponse(custom_id=each, number=1, error=error) for each in "ab"]
    core.script("StreamBatchResults", *results)
    status, text = await get(client, f"/v1/files/file-errors-{HEX}/content")
    assert status == 200
    assert [json.loads(line)["custom_id"] for line in text.splitlines()] == ["a", "b"]
    assert core.requests[-1].kind == batch_pb2.BATCH_RESULT_KIND_ERRORS
    assert (await get(client, f"/v1/files/file-errors-{HEX}", "DELETE"))[0] == 200
    assert core.requests[-1].kind == batch_pb2.BATCH_RESULT_KIND_ERRORS


async def test_a_file_that_breaks_off_is_no_whole_file(core, client):
    failed = Fail(grpc.StatusCode.FAILED_PRECONDITION, "STORE_FAILED", "the disk is broken")
    core.script("StreamFile", files_pb2.StreamFileResponse(chunk=b"x" * 70_000), failed)
    with pytest.raises(aiohttp.ClientError):
        await get(client, "/v1/files/file-1/content")
    core.script("StreamFile", failed)
    assert (await get(client, "/v1/files/file-1/content"))[0] == 500


async def test_files_are_listed_with_results_in_order(core, client):
    files = [files_pb2.File(id=f"file-{number}", purpose="batch", create_time={"seconds": number}) for number in (9, 1)]
    core.script("ListFiles", files_pb2.ListFilesResponse(files=files))
    core.script("ListBatches", batch_pb2.ListBatchesResponse(batches=[ENDED, batch_pb2.Batch(id="batch_by_grpc")]))

    async def listed(query):
        found = json.loads((await get(client, f"/v1/files?{query}"))[1])
        return [each["id"] for each in found["data"]], found["has_more"]

    everything = ["file-9", f"file-output-{HEX}", f"file-errors-{HEX}", "file-1"]
    assert await listed("") == (everything, False)
    assert await listed("order=asc") == (everything[::-1], False)
    assert await listed("purpose=batch") == (["file-9", "file-1"], False)
    assert await listed("limit=1") == (["file-9"], True)
    assert await listed(f"limit=3&after={everything[1]}") == (everything[2:], False)
    for query in ("limit=0", "limit=x", "limit=10001", "after=nosuch"):
        assert (await get(client, f"/v1/files?{query}"))[0] == 400


@pytest.mark.parametrize("id_", ["nosuch", "..%2F..%2Flock", "%00", "file-output-", "file-output-..", "x" * 5000])
async def test_an_unknown_file_is_not_found(core, client, id_):
    for method in ("GetFile", "DeleteFile", "StreamFile", "GetBatch"):
        core.script(method, MISSING)
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/content")):
        assert (await get(client, f"/v1/files/{id_}{path}", method))[0] == 404
