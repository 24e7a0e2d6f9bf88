"""Browsers call the methods of puna.v1 by Connect and gRPC-Web. Each test speaks the bytes of the protocol."""

import base64
import json
import struct

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from yarl import URL

from puna_client.v1 import chat_pb2, generate_pb2, models_pb2

CHAT = "/puna.v1.ChatService/"
GENERATE = "/puna.v1.GenerateService/"
DELTAS = [
    generate_pb2.StreamGenerateResponse(deltas=[generate_pb2.GenerateDelta(text="a")]),
    generate_pb2.StreamGenerateResponse(deltas=[generate_pb2.GenerateDelta(text="é")], done={"finish": {"reason": 1}}),
]


def envelope(data, flags=0):
    return bytes([flags]) + struct.pack(">I", len(data)) + data


def envelopes(body):
    found = []
    while body:
        size = int.from_bytes(body[1:5], "big")
        found.append((body[0], body[5 : 5 + size]))
        body = body[5 + size :]
    return found


async def post(client, path, content_type, body, **headers):
    names = {"Content-Type": content_type} | {name.replace("_", "-"): value for name, value in headers.items()}
    async with client.post(path, data=body, headers=names) as response:
        return response.status, response.headers, await response.read()


async def test_a_unary_call_by_connect_in_json(core, client):
    core.script("Chat", chat_pb2.ChatResponse(message={"role": "assistant", "content": "hé"}))
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], "unknown": 1})
    status, headers, answer = await post(client, CHAT + "Chat", "application/json", body, Connect_Protocol_Version="1")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert json.loads(answer) == {"message": {"role": "assistant", "content": "hé"}}
    assert (core.requests[0].model, core.requests[0].messages[0].content) == ("m", "hi")


async def test_a_unary_call_by_connect_in_protobuf(core, client):
    core.script("ListModels", models_pb2.ListModelsResponse(models=[models_pb2.Model(name="m")]))
    status, headers, answer = await post(client, "/puna.v1.ModelsService/ListModels", "application/proto", b"")
    assert (status, headers["Content-Type"]) == (200, "application/proto")
    assert models_pb2.ListModelsResponse.FromString(answer).models[0].name == "m"


async def test_a_stream_by_connect(core, client):
    core.script("StreamGenerate", *DELTAS)
    body = envelope(json.dumps({"model": "m", "text": "x"}).encode())
    status, headers, answer = await post(client, GENERATE + "StreamGenerate", "application/connect+json", body)
    assert (status, headers["Content-Type"]) == (200, "application/connect+json")
    first, second, end = envelopes(answer)
    assert json.loads(first[1]) == {"deltas": [{"text": "a"}]}
    assert json.loads(second[1])["done"] == {"finish": {"reason": "FINISH_REASON_STOP"}}
    assert (end[0], json.loads(end[1])) == (2, {})


@pytest.mark.parametrize("text", [False, True])
async def test_a_stream_by_grpc_web(core, client, text):
    core.script("StreamGenerate", *DELTAS)
    body = envelope(generate_pb2.GenerateRequest(model="m", text="x").SerializeToString())
    content_type = "application/grpc-web-text" if text else "application/grpc-web+proto"
    status, headers, answer = await post(
        client, GENERATE + "StreamGenerate", content_type, base64.b64encode(body) if text else body
    )
    assert (status, headers["Content-Type"]) == (200, content_type)
    if text:
        # A client decodes the pieces, each of which may end with padding.
        answer = b"".join(base64.b64decode(each + b"=" * (-len(each) % 4)) for each in answer.split(b"="))
    *messages, (flags, trailers) = envelopes(answer)
    assert [generate_pb2.StreamGenerateResponse.FromString(data) for _, data in messages] == DELTAS
    assert (flags, trailers) == (0x80, b"grpc-status:0\r\n")


async def test_errors_have_the_form_of_the_protocol(core, client, fail):
    failing = fail(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "model 'é' not found")
    core.script("Generate", failing)
    core.script("StreamGenerate", DELTAS[0], failing)
    status, headers, answer = await post(client, GENERATE + "Generate", "application/json", b"{}")
    error = json.loads(answer)
    assert (status, headers["Content-Type"].partition(";")[0]) == (404, "application/json")
    assert (error["code"], error["message"]) == ("not_found", "model 'é' not found")
    (detail,) = error["details"]
    info = ErrorInfo.FromString(base64.b64decode(detail["value"] + "=="))
    assert (detail["type"], info.reason) == ("google.rpc.ErrorInfo", "MODEL_NOT_FOUND")
    _, _, answer = await post(client, GENERATE + "StreamGenerate", "application/connect+json", envelope(b"{}"))
    assert json.loads(envelopes(answer)[-1][1])["error"] == error
    _, _, answer = await post(client, GENERATE + "Generate", "application/grpc-web", envelope(b""))
    ((flags, trailers),) = envelopes(answer)
    assert flags == 0x80
    assert trailers.startswith(b"grpc-status:5\r\ngrpc-message:model '%C3%A9' not found\r\ngrpc-status-details-bin:")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{"),
        ("application/json", b'{"model": 1}'),
        ("application/proto", b"\xff"),
        ("application/grpc-web", b"\0\0"),
        ("application/grpc-web", b"\0\0\0\0\x09ab"),
        ("application/grpc-web", b"\x01\0\0\0\0"),
        ("application/grpc-web-text", b"A"),
    ],
)
async def test_a_body_that_cannot_be_read_is_the_clients_fault(core, client, content_type, body):
    status, _, answer = await post(client, GENERATE + "Generate", content_type, body)
    if "grpc" in content_type:
        answer = base64.b64decode(answer) if "text" in content_type else answer
        assert envelopes(answer)[0][1].startswith(b"grpc-status:3\r\n")
    else:
        assert (status, json.loads(answer)["code"]) == (400, "invalid_argument")
    assert core.requests == []


async def test_what_is_not_served(core, client):
    for path, code in ((GENERATE + "Nothing", 501), ("/puna.v1.EmbedService/StreamEmbed", 501)):
        status, _, answer = await post(client, path, "application/json", b"{}")
        assert (status, json.loads(answer)["code"]) == (code, "unimplemented")
    # A stream of Connect needs envelopes, and a form of a page is no call at all.
    for content_type in ("application/json", "text/plain", "application/x-www-form-urlencoded"):
        assert (await post(client, GENERATE + "StreamGenerate", content_type, b"{}"))[0] == 415
    assert (await post(client, "/puna.v1.NoService/Nothing", "application/json", b"{}"))[0] == 404


async def test_a_deadline(core, client, wait):
    core.script("StreamGenerate", DELTAS[0], wait())
    body = envelope(b"{}")
    _, _, answer = await post(
        client, GENERATE + "StreamGenerate", "application/connect+json", body, Connect_Timeout_Ms="200"
    )
    assert json.loads(envelopes(answer)[-1][1])["error"]["code"] == "deadline_exceeded"
    await core.until_cancelled()


async def test_pages_of_other_origins_are_refused_and_local_ones_may_read_all(core, client):
    core.script("Generate", generate_pb2.GenerateResponse(text="a"))
    path = GENERATE + "Generate"
    assert (await post(client, path, "application/json", b"{}", Origin="https://evil.example"))[0] == 403
    assert core.requests == []
    status, headers, _ = await post(client, path, "application/json", b"{}", Origin="http://localhost:3000")
    assert (status, headers["Access-Control-Allow-Origin"]) == (200, "http://localhost:3000")
    assert "Grpc-Status" in headers["Access-Control-Expose-Headers"]
    asked = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    async with client.options(path, headers=asked) as response:
        assert "Connect-Protocol-Version" in response.headers["Access-Control-Allow-Headers"]
    async with client.options("/api/chat", headers=asked) as response:
        assert "Connect-Protocol-Version" not in response.headers["Access-Control-Allow-Headers"]


async def test_a_client_cannot_set_its_time_of_arrival(core, client):
    core.script("Generate", generate_pb2.GenerateResponse(text="a"))
    body = json.dumps({"options": {"startTime": "2001-01-01T00:00:00Z", "priority": 3}})
    await post(client, GENERATE + "Generate", "application/json", body)
    assert not core.requests[0].options.HasField("start_time")
    assert core.requests[0].options.priority == 3


async def get(client, path, **query):
    async with client.get(path, params=query) as response:
        return response.status, response.headers, await response.read()


LISTING = "/puna.v1.ModelsService/ListModels"


@pytest.mark.parametrize(
    "query",
    [
        {"encoding": "json", "message": '{"pageSize": 7}', "connect": "v1"},
        {"encoding": "json", "message": base64.urlsafe_b64encode(b'{"pageSize":7}').decode(), "base64": "1"},
        {
            "encoding": "json",
            "message": base64.urlsafe_b64encode(b'{"pageSize":7}').decode().rstrip("="),
            "base64": "1",
        },
        {"encoding": "proto", "message": "\x08\x07"},
        {"encoding": "proto", "message": "CAc", "base64": "1", "compression": "identity"},
    ],
)
async def test_what_only_reads_can_be_asked_by_get(core, client, query):
    core.script("ListModels", models_pb2.ListModelsResponse(models=[models_pb2.Model(name="m")]))
    status, headers, answer = await get(client, LISTING, **query)
    assert (status, headers["Content-Type"]) == (200, f"application/{query['encoding']}")
    assert b"m" in answer
    assert core.requests[0].page_size == 7


async def test_bytes_in_a_query_need_not_be_characters(core, client):
    core.script("StatBlob", models_pb2.StatBlobResponse(size_bytes=1))
    encoded = "%0a%02%c3%a9"  # the digest is an e with an accent, as UTF-8
    async with client.get(
        URL(f"/puna.v1.ModelsService/StatBlob?encoding=proto&message={encoded}", encoded=True)
    ) as answer:
        assert answer.status == 200
    assert core.requests[0].digest == "\xe9"


async def test_a_failed_get(core, client, fail):
    core.script("ListModels", fail(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", "no"))
    status, _, answer = await get(client, LISTING, encoding="json", message="{}")
    assert (status, json.loads(answer)["code"]) == (400, "invalid_argument")


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        (GENERATE + "Generate", {"encoding": "json", "message": "{}"}, 405),
        ("/puna.v1.ModelsService/DeleteModel", {"encoding": "json", "message": "{}"}, 405),
        ("/puna.v1.ModelsService/StreamModel", {"encoding": "json", "message": "{}"}, 405),
        ("/puna.v1.ModelsService/Nothing", {"encoding": "json", "message": "{}"}, 501),
        (LISTING, {"encoding": "xml", "message": "{}"}, 415),
        (LISTING, {"encoding": "grpc-web", "message": "{}"}, 415),
        (LISTING, {}, 415),
        (LISTING, {"encoding": "json", "message": "{"}, 400),
        (LISTING, {"encoding": "json", "message": "!", "base64": "1"}, 400),
        (LISTING, {"encoding": "json", "message": "{}", "compression": "gzip"}, 400),
    ],
)
async def test_what_cannot_be_asked_by_get(core, client, path, query, status):
    assert (await get(client, path, **query))[0] == status
    assert core.requests == []
