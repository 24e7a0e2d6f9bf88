import json

import grpc
import pytest
from tests.rest_bridge.conftest import Fail
from tests.rest_bridge.routes.test_files import ENDED, HEX, MISSING, get

from puna_client.v1 import batch_pb2, files_pb2

BODY = {"input_file_id": "file-1", "endpoint": "/v1/completions", "completion_window": "24h"}


def line(custom_id, **changed):
    request = {
        "custom_id": custom_id,
        "method": "POST",
        "url": "/v1/completions",
        "body": {"model": "m", "prompt": "p"},
    }
    return json.dumps(request | changed).encode() + b"\n"


async def post(client, body=BODY):
    async with client.post("/v1/batches", json=body) as response:
        return response.status, json.loads(await response.text())


def stored(core, *chunks):
    core.script("StreamFile", *(files_pb2.StreamFileResponse(chunk=each) for each in chunks))
    core.script("CreateBatch", batch_pb2.CreateBatchResponse(batch=ENDED))


async def test_a_file_becomes_a_batch(core, client):
    data = b"\xef\xbb\xbf" + line("a") + b"\r\n" + line("b") + line("c").rstrip()
    stored(core, data[:50], data[50:51], data[51:])
    status, answer = await post(client, BODY | {"metadata": {"k": "v"}})
    assert status == 200
    assert answer == {
        "id": f"batch_{HEX}",
        "object": "batch",
        "endpoint": "/v1/completions",
        "errors": None,
        "input_file_id": "file-1",
        "completion_window": "24h",
        "status": "completed",
        "output_file_id": f"file-output-{HEX}",
        "error_file_id": f"file-errors-{HEX}",
        "created_at": 3,
        "in_progress_at": None,
        "expires_at": 0,
        "finalizing_at": 7,
        "completed_at": 7,
        "failed_at": None,
        "expired_at": None,
        "cancelling_at": None,
        "cancelled_at": None,
        "request_counts": {"total": 2, "completed": 1, "failed": 1},
        "metadata": None,
    }
    first, *items = next(each for each in core.requests if isinstance(each, list))
    assert dict(first.config.metadata) == {"k": "v"}
    assert [each.item.custom_id for each in items] == ["a", "b", "c"]
    assert all(each.item.generate.text == "p" for each in items)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"endpoint": "/v1/audio/transcriptions"}, "endpoint must be one of /v1/chat/completions,"),
        ({"endpoint": ""}, "endpoint must be one of"),
        ({"completion_window": "1h"}, "completion_window must be 24h"),
        ({"metadata": ["x"]}, "metadata must be an object"),
        ({"metadata": {"k": 1}}, "metadata must be an object"),
        ({"input_file_id": 5}, "cannot unmarshal"),
    ],
)
async def test_settings_are_checked(client, changed, said):
    status, answer = await post(client, BODY | changed)
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
    assert said in answer["error"]["message"]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b"{\n", "line 3: unexpected EOF"),
        (b"no json\n", "line 3: invalid character"),
        (b'"text"\n', "line 3: json: cannot unmarshal"),
        (line("b").strip() + line("c"), "line 3: there is more than one JSON value"),
        (line("b", method="GET"), "line 3: method must be POST"),
        (line("b", url="/v1/embeddings"), "line 3: url must be /v1/completions"),
        (line("b", url="../../etc/passwd"), "line 3: url must be /v1/completions"),
        (line("b", body={"model": 5}), "line 3: json: cannot unmarshal number"),
        (
            json.dumps({"custom_id": "b", "method": "POST", "url": "/v1/completions"}).encode(),
            "line 3: body is missing",
        ),
        (line("b", body=[]), "line 3: json: cannot unmarshal array"),
        (line("b", body={"model": "m", "stop": [[["x"]]]}), "line 3: "),
        (b"[" * 100_000 + b"\n", "line 3: invalid character '[' exceeded max depth"),
        (b" " * (9 << 20), "line 3 has more than 8388608 bytes"),
        (b'{"a":' + b'"' + b"x" * (9 << 20), "line 3 has more than 8388608 bytes"),
    ],
)
async def test_a_bad_line_is_named_by_its_number(core, client, bad, said):
    stored(core, line("a") + b"\n" + bad + b"\n" + line("z"))
    status, answer = await post(client)
    assert (status, said in answer["error"]["message"]) == (400, True), answer


async def test_what_the_core_refuses_keeps_its_text(core, client):
    stored(core, line("a"))
    core.script("CreateBatch", Fail(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", "request 3: the custom id"))
    assert await post(client) == (
        400,
        {
            "error": {
                "message": "request 3: the custom id",
                "type": "invalid_request_error",
                "param": None,
                "code": None,
            }
        },
    )
    stored(core, line("a"))
    core.script("StreamFile", MISSING)
    assert (await post(client))[0] == 404


async def test_a_batch_is_read_and_cancelled(core, client):
    for method, kind in (("GetBatch", batch_pb2.GetBatchResponse), ("CancelBatch", batch_pb2.CancelBatchResponse)):
        core.script(method, kind(batch=ENDED))
    for method, path in (("GET", ""), ("POST", "/cancel")):
        status, text = await get(client, f"/v1/batches/batch_{HEX}{path}", method)
        assert (status, json.loads(text)["status"]) == (200, "completed")
        assert core.requests[-1].id == f"batch_{HEX}"
    for method in ("GetBatch", "CancelBatch"):
        core.script(method, MISSING)
    for method, path in (("GET", ""), ("POST", "/cancel")):
        assert (await get(client, f"/v1/batches/..%2Fx{path}", method))[0] == 404


async def test_a_batch_of_grpc_is_not_one_of_this_api(core, client):
    core.script("GetBatch", batch_pb2.GetBatchResponse(batch=batch_pb2.Batch(id="batch_1", client_data=b"mine")))
    assert (await get(client, "/v1/batches/batch_1"))[0] == 404


async def test_batches_are_listed_in_pages(core, client):
    listed = [batch_pb2.Batch(id=f"b{number}", client_data=ENDED.client_data) for number in range(3)]
    listed.insert(1, batch_pb2.Batch(id="by grpc"))
    core.script("ListBatches", batch_pb2.ListBatchesResponse(batches=listed))
    status, text = await get(client, "/v1/batches?limit=2&after=b9")
    found = json.loads(text)
    assert (status, [each["id"] for each in found["data"]]) == (200, ["b0", "b1"])
    assert (found["object"], found["first_id"], found["last_id"], found["has_more"]) == ("list", "b0", "b1", True)
    assert core.requests[-1].after_id == "b9"
    assert json.loads((await get(client, "/v1/batches"))[1])["has_more"] is False
    assert (await get(client, "/v1/batches?limit=101"))[0] == 400
