import grpc
import pytest

from puna_client.v1 import message_pb2, models_pb2


def step(**fields):
    return models_pb2.CreateModelResponse(progress=models_pb2.JobProgress(**fields))


STEPS = (
    step(status="pulling <x>", digest="sha256:1", total_bytes=10),
    step(status="pulling", digest="sha256:1", total_bytes=10, completed_bytes=4),
    step(status="success"),
)
DIGEST = "sha256:" + "1" * 64


async def asked(client, path, body):
    async with client.post(path, data=body) as response:
        return response.status, response.headers["Content-Type"], await response.text()


async def test_progress_line_by_line(core, client):
    core.script("CreateModel", *STEPS)
    assert await asked(client, "/api/create", '{"model":"m","from":"a"}') == (
        200,
        "application/x-ndjson",
        '{"status":"pulling \\u003cx\\u003e","digest":"sha256:1","total":10}\n'
        '{"status":"pulling","digest":"sha256:1","total":10,"completed":4}\n'
        '{"status":"success"}\n',
    )


async def test_without_stream_the_last_step_is_the_answer(core, client):
    core.script("CreateModel", *STEPS)
    answer = await asked(client, "/api/create", '{"model":"m","from":"a","stream":false}')
    assert answer == (200, "application/json", '{"status":"success"}')


@pytest.mark.parametrize("stream", ["true", "false"])
async def test_errors_of_the_job_and_of_the_name(core, client, fail, stream):
    core.script("CreateModel", fail(grpc.StatusCode.INTERNAL, "CREATE_FAILED", "x"))
    body = f'{{"model":"m","stream":{stream}}}'
    assert await asked(client, "/api/create", body) == (500, "application/json", '{"error":"x"}')
    core.script("CreateModel", fail(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MODEL_NAME", "invalid model name"))
    assert await asked(client, "/api/create", body) == (
        400,
        "application/json; charset=utf-8",
        '{"error":"invalid model name"}',
    )


async def test_an_error_after_the_first_step_is_a_line(core, client, fail):
    core.script("PullModel", STEPS[2], fail(grpc.StatusCode.UNAVAILABLE, "TRANSFER_FAILED", "x"))
    _, _, text = await asked(client, "/api/pull", '{"model":"m","insecure":true}')
    assert text == '{"status":"success"}\n{"error":"x"}\n'
    assert core.requests == [models_pb2.PullModelRequest(name="m", insecure=True)]
    status, kind, text = await asked(client, "/api/pull", '{"model":"m","stream":false}')
    assert (status, kind, text) == (500, "application/json", '{"error":"x"}')


async def test_push_needs_a_name(core, client):
    answer = await asked(client, "/api/push", "{}")
    assert answer == (400, "application/json; charset=utf-8", '{"error":"model is required"}')


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ('"files":{"../a":"x"}', 400, "file path must be relative"),
        ('"files":{"/a":"x"}', 400, "file path must be relative"),
        ('"files":{"a//b":"x"}', 400, "file path must be relative"),
        ('"files":{"":"x"}', 400, "file path must be relative"),
        ('"draft_files":{"./a":"x"}', 400, "file path must be relative"),
        ('"files":{"a":""}', 400, "invalid digest format"),
        ('"adapters":{"/a":""}', 400, "invalid digest format"),
        ('"draft_quantize":"q"', 400, "--draft-quantize requires a DRAFT model"),
        ('"from":"b","license":3', 500, "json: cannot unmarshal number into Go value of type []string"),
        ('"files":{"a":"b"},"license":["a",3]', 500, "json: cannot unmarshal number into Go value of type string"),
    ],
)
async def test_what_is_refused_before_the_core_is_asked(core, client, body, status, text):
    kind = "application/json" if status == 500 else "application/json; charset=utf-8"
    assert await asked(client, "/api/create", f'{{"model":"m",{body}}}') == (status, kind, f'{{"error":"{text}"}}')
    assert core.requests == []


@pytest.mark.parametrize("files", ["", ',"files":{}'])
async def test_a_wrong_license_of_nothing_is_the_cores_to_refuse(core, client, fail, files):
    core.script("CreateModel", fail(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_CREATE", "x"))
    answer = await asked(client, "/api/create", f'{{"model":"m","license":3{files}}}')
    assert answer == (400, "application/json", '{"error":"x"}')


async def test_everything_a_body_says_reaches_the_core(core, client):
    core.script("CreateModel", *STEPS)
    body = (
        f'{{"name":"m","files":{{"a/b.gguf":"{DIGEST}"}},"adapters":{{"c":"{DIGEST}"}},"template":"t","system":"s",'
        '"license":["MIT","X"],"parameters":{"temperature":0.50,"stop":["a"]},"messages":[{"role":"USER","content":"hi"}],'
        '"quantization":"q4_k_m","renderer":"r","parser":"p","requires":"0.1","remote_host":"h","info":{"base_name":"b"}}'
    )
    await asked(client, "/api/create", body)
    assert core.requests == [
        models_pb2.CreateModelRequest(
            name="m",
            files=[models_pb2.FileBlob(name="a/b.gguf", digest=DIGEST)],
            has_files=True,
            adapters=[models_pb2.FileBlob(name="c", digest=DIGEST)],
            template="t",
            system="s",
            licenses=["MIT", "X"],
            parameters_json='{"temperature":0.50,"stop":["a"]}',
            messages=[message_pb2.ChatMessage(role="USER", content="hi")],
            quantize="q4_k_m",
            renderer="r",
            parser="p",
            requires="0.1",
            remote_host="h",
            info_json='{"base_name":"b"}',
        )
    ]
