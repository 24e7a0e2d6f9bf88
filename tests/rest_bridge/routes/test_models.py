from google.protobuf.timestamp_pb2 import Timestamp

from puna_client.v1 import message_pb2, models_pb2

DETAILS = models_pb2.ModelDetails(
    parent_model="p:latest",
    format="gguf",
    family="llama",
    families=["llama"],
    has_families=True,
    parameter_size="184K",
    quantization_level="Q8_0",
    context_length=4096,
    embedding_length=128,
)
MODEL = models_pb2.Model(
    name="m:latest",
    digest="ab",
    size_bytes=12,
    modify_time=Timestamp(seconds=1, nanos=500000000),
    modify_utc_offset_seconds=3600,
    details=DETAILS,
    capabilities=["completion", "tools"],
)
SHORT = '"format":"gguf","family":"llama","families":["llama"],"parameter_size":"184K","quantization_level":"Q8_0"'


async def test_tags(core, client):
    stub = models_pb2.Model(name="r:latest", remote_model="r", remote_host="https://x")
    core.script("ListModels", models_pb2.ListModelsResponse(models=[MODEL, stub]))
    async with client.get("/api/tags") as response:
        assert response.headers["Content-Type"] == "application/json; charset=utf-8"
        assert await response.text() == (
            '{"models":[{"name":"m:latest","model":"m:latest","modified_at":"1970-01-01T01:00:01.5+01:00","size":12,'
            f'"digest":"ab","details":{{"parent_model":"p:latest",{SHORT},"context_length":4096,"embedding_length":128}},'
            '"capabilities":["completion","tools"]},'
            '{"name":"r:latest","model":"r:latest","remote_model":"r","remote_host":"https://x",'
            '"modified_at":"1970-01-01T00:00:00Z","size":0,"digest":"","details":{"parent_model":"","format":"",'
            '"family":"","families":null,"parameter_size":"","quantization_level":""}}]}'
        )


async def test_ps(core, client):
    loaded = models_pb2.LoadedModel(
        model=MODEL, size_bytes=9, vram_bytes=0, expire_time=Timestamp(seconds=2), context_length=2048
    )
    core.script("ListLoadedModels", models_pb2.ListLoadedModelsResponse(models=[loaded]))
    async with client.get("/api/ps") as response:
        assert await response.text() == (
            '{"models":[{"name":"m:latest","model":"m:latest","size":9,"digest":"ab",'
            f'"details":{{"parent_model":"",{SHORT}}},"expires_at":"1970-01-01T00:00:02Z","size_vram":0,'
            '"context_length":2048}]}'
        )


SHOWN = models_pb2.GetModelResponse(
    model=MODEL,
    license="MIT",
    modelfile="# <f>",
    parameters="p",
    template="t",
    system="s",
    messages=[message_pb2.ChatMessage(role="user", content="hi")],
    model_info_json='{"a":1e+21,"general.basename":"x","z":[1]}',
    tensors=[models_pb2.TensorInfo(name="w", type="F32", shape=[2, 3])],
    requires="0.6",
)


async def test_show(core, client):
    core.script("GetModel", SHOWN)
    async with client.post(
        "/api/show", data='{"name":"m","verbose":true,"system":"S","options":{"b":2,"a":1}}'
    ) as response:
        assert await response.text() == (
            '{"license":"MIT","modelfile":"# \\u003cf\\u003e","parameters":"p","template":"t","system":"s",'
            f'"details":{{"parent_model":"p:latest",{SHORT}}},"messages":[{{"role":"user","content":"hi"}}],'
            '"model_info":{"a":1e+21,"general.basename":"x","z":[1]},'
            '"tensors":[{"name":"w","type":"F32","shape":[2,3]}],"capabilities":["completion","tools"],'
            '"modified_at":"1970-01-01T01:00:01.5+01:00","requires":"0.6"}'
        )
    assert core.requests == [
        models_pb2.GetModelRequest(name="m", verbose=True, system="S", options_json='{"b":2,"a":1}')
    ]


async def test_copilot_sees_the_name_it_asked_for_as_basename(core, client):
    core.script("GetModel", SHOWN)
    agent = {"User-Agent": "GitHubCopilotChat/1"}
    async with client.post("/api/show", data='{"model":"<m>"}', headers=agent) as response:
        text = await response.text()
    assert '"model_info":{"a":1e+21,"general.basename":"\\u003cm\\u003e","z":[1]}' in text


async def test_copy_and_delete_answer_with_nothing(core, client):
    core.script("CopyModel", models_pb2.CopyModelResponse())
    core.script("DeleteModel", models_pb2.DeleteModelResponse())
    for method, path, body in (
        ("POST", "/api/copy", '{"source":"a","destination":"b"}'),
        ("DELETE", "/api/delete", '{"name":"a"}'),
    ):
        async with client.request(method, path, data=body) as response:
            assert response.status == 200
            assert response.headers["Content-Length"] == "0"
            assert "Content-Type" not in response.headers
    assert core.requests == [
        models_pb2.CopyModelRequest(source="a", destination="b"),
        models_pb2.DeleteModelRequest(name="a"),
    ]
