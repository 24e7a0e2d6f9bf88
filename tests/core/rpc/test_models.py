import hashlib
import re
import shutil

import grpc
import pytest
from tests.core.serving.asking import until
from tests.core.serving.conftest import MODELS
from tests.core.serving.conftest import stocked as shared

from puna.models.store import ModelStore
from puna_client.v1 import models_pb2, models_pb2_grpc, options_pb2

__all__ = ["shared"]
CHUNK = 1 << 16


@pytest.fixture
def stocked(shared, tmp_path):
    """A store of our own to change."""
    shutil.copytree(shared.root, tmp_path / "models")
    return ModelStore(tmp_path / "models")


async def failing(call):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value


async def steps(call):
    """Read a job to its end; return the texts of its steps."""
    *found, last = [message async for message in call]
    assert last.WhichOneof("event") == "model"
    assert found[-1].progress.phase == models_pb2.JOB_PHASE_DONE
    assert all(message.progress.phase for message in found)
    return [message.progress.status for message in found]


async def test_list(stubs, stocked):
    answer = await stubs.models.ListModels(models_pb2.ListModelsRequest())
    models = {each.name: each for each in answer.models}
    assert set(models) == {summary.name.shortest for summary in stocked.list()}
    plain = models["plain:latest"]
    assert (plain.details.format, plain.details.family, plain.details.has_families) == ("gguf", "llama", True)
    assert plain.capabilities == ["completion"]
    assert plain.size_bytes > 700_000
    assert re.fullmatch("sha256:[0-9a-f]{64}", plain.digest)


async def test_get(stubs):
    answer = await stubs.models.GetModel(models_pb2.GetModelRequest(name="Full", options_json='{"top_k": 1}'))
    assert (answer.model.name, answer.system) == ("full:latest", "Be brief.")
    assert "PARAMETER top_k 1" in answer.modelfile
    assert '"general.architecture":"llama"' in answer.model_info_json
    assert answer.tensors


async def test_a_large_description_reaches_a_client_with_the_usual_limit(stubs, address):
    created = models_pb2.CreateModelRequest(name="large", licenses=["x" * (6 << 20)], from_model="plain")
    assert (await steps(stubs.models.CreateModel(created)))[-1] == "success"
    asked = models_pb2.GetModelRequest(name="large", verbose=True)
    whole = await stubs.models.GetModel(asked)
    async with grpc.aio.insecure_channel(address) as channel:
        usual = models_pb2_grpc.ModelsServiceStub(channel)
        assert (await failing(usual.GetModel(asked))).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        found = [each.part async for each in usual.StreamModel(asked)]
    assert len(found) > 6
    assert found[0].model == whole.model
    for name in ("license", "modelfile", "model_info_json", "template"):
        assert "".join(getattr(each, name) for each in found) == getattr(whole, name)
    assert [tensor for each in found for tensor in each.tensors] == list(whole.tensors)


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("", grpc.StatusCode.INVALID_ARGUMENT, "model is required"),
        ("a b", grpc.StatusCode.INVALID_ARGUMENT, "invalid model name"),
        ("x", grpc.StatusCode.NOT_FOUND, "model 'x:latest' not found"),
        (
            "x:cloud",
            grpc.StatusCode.PERMISSION_DENIED,
            "the model runs in Ollama's cloud, which this server does not call",
        ),
    ],
)
async def test_get_none(stubs, name, code, text):
    error = await failing(stubs.models.GetModel(models_pb2.GetModelRequest(name=name)))
    assert (error.code(), error.details()) == (code, text)


async def test_load_list_and_unload(stubs):
    options = options_pb2.RequestOptions(runtime=options_pb2.RuntimeOptions(context_length=64))
    loaded = (await stubs.models.LoadModel(models_pb2.LoadModelRequest(name="talker", options=options))).loaded
    assert (loaded.model.name, loaded.context_length, loaded.backend) == ("talker:latest", 64, "played")
    listed = await stubs.models.ListLoadedModels(models_pb2.ListLoadedModelsRequest())
    assert [each.model.digest for each in listed.models] == [loaded.model.digest]
    assert listed.models[0].expire_time.seconds > 1_700_000_000
    assert (await stubs.models.UnloadModel(models_pb2.UnloadModelRequest(name="talker"))).was_loaded
    assert not (await stubs.models.UnloadModel(models_pb2.UnloadModelRequest(name="talker"))).was_loaded
    listed = await stubs.models.ListLoadedModels(models_pb2.ListLoadedModelsRequest())
    assert list(listed.models) == []
    error = await failing(stubs.models.UnloadModel(models_pb2.UnloadModelRequest(name="nothere")))
    assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_pin_and_let_go(stubs):
    pin = models_pb2.PinModelRequest(name="talker", pinned=True)
    assert await stubs.models.PinModel(pin) == models_pb2.PinModelResponse()
    await stubs.models.LoadModel(models_pb2.LoadModelRequest(name="talker"))
    assert await stubs.models.PinModel(pin) == models_pb2.PinModelResponse(was_loaded=True, pinned=True)
    (listed,) = (await stubs.models.ListLoadedModels(models_pb2.ListLoadedModelsRequest())).models
    assert listed.pinned
    assert listed.expire_time.seconds > 9_000_000_000
    pin.pinned = False
    assert await stubs.models.PinModel(pin) == models_pb2.PinModelResponse(was_loaded=True)
    (listed,) = (await stubs.models.ListLoadedModels(models_pb2.ListLoadedModelsRequest())).models
    assert not listed.pinned
    assert listed.expire_time.seconds < 9_000_000_000
    error = await failing(stubs.models.PinModel(models_pb2.PinModelRequest(name="nothere")))
    assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_copy_and_delete(stubs):
    await stubs.models.CopyModel(models_pb2.CopyModelRequest(source="plain", destination="me/copy:1"))
    assert (await stubs.models.GetModel(models_pb2.GetModelRequest(name="me/copy:1"))).model.name == "me/copy:1"
    await stubs.models.DeleteModel(models_pb2.DeleteModelRequest(name="me/copy:1"))
    error = await failing(stubs.models.DeleteModel(models_pb2.DeleteModelRequest(name="me/copy:1")))
    assert error.details() == "model 'me/copy:1' not found"


@pytest.mark.parametrize(
    ("source", "destination", "text"),
    [
        ("", "", 'source "" is invalid'),
        ("plain", "a b", 'destination "a b" is invalid'),
        ("nothere", "x", 'model "nothere" not found'),
    ],
)
async def test_copies_that_cannot_be(stubs, source, destination, text):
    error = await failing(stubs.models.CopyModel(models_pb2.CopyModelRequest(source=source, destination=destination)))
    assert error.details() == text


@pytest.mark.parametrize(("name", "text"), [("", "model is required"), ("a b", 'name "a b" is invalid')])
async def test_deletions_that_cannot_be(stubs, name, text):
    error = await failing(stubs.models.DeleteModel(models_pb2.DeleteModelRequest(name=name)))
    assert error.details() == text


async def test_create_from_a_model(stubs):
    request = models_pb2.CreateModelRequest(name="new", system="S", parameters_json='{"top_k": 3}')
    request.from_model = "talker"
    assert (await steps(stubs.models.CreateModel(request)))[-2:] == ["writing manifest", "success"]
    answer = await stubs.models.GetModel(models_pb2.GetModelRequest(name="new"))
    assert (answer.system, answer.parameters.split()) == ("S", ["top_k", "3"])


async def test_a_model_looks_alike_in_every_answer(stubs):
    request = models_pb2.CreateModelRequest(name="new", from_model="talker")
    made = [message async for message in stubs.models.CreateModel(request)][-1].model
    listed = (await stubs.models.ListModels(models_pb2.ListModelsRequest())).models
    assert made.name == "new:latest"
    assert made == next(each for each in listed if each.name == made.name)
    assert made == (await stubs.models.GetModel(models_pb2.GetModelRequest(name="new"))).model
    loaded = (await stubs.models.LoadModel(models_pb2.LoadModelRequest(name="new"))).loaded.model
    # The store of this test knows no backends.
    loaded.ClearField("serving_backend")
    assert made == loaded


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"name": ""}, "invalid model name"),
        ({"name": "x"}, "one of from_model, files, upstream and backend must be set"),
        ({"name": "x", "files": [{"name": "../a", "digest": "d"}]}, "file path must be relative"),
    ],
)
async def test_creations_that_cannot_be(stubs, fields, text):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await steps(stubs.models.CreateModel(models_pb2.CreateModelRequest(**fields)))
    assert raised.value.details() == text
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def parts(data, digest=None):
    async def each():
        yield models_pb2.UploadBlobRequest(config={"digest": digest or digest_of(data)})
        for at in range(0, len(data), CHUNK):
            yield models_pb2.UploadBlobRequest(chunk=data[at : at + CHUNK])

    return each()


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class TestBlobs:
    async def test_upload_then_create(self, stubs, stocked):
        data = (MODELS / "jinja.gguf").read_bytes()
        answer = await stubs.models.UploadBlob(parts(data))
        assert (answer.size_bytes, answer.created) == (len(data), True)
        stat = await stubs.models.StatBlob(models_pb2.StatBlobRequest(digest=digest_of(data)))
        assert stat.size_bytes == len(data)
        file = {"name": "m.gguf", "digest": digest_of(data)}
        request = models_pb2.CreateModelRequest(name="uploaded", files=[file], has_files=True)
        assert (await steps(stubs.models.CreateModel(request)))[-1] == "success"

    async def test_what_is_there_is_not_read(self, stubs):
        await stubs.models.UploadBlob(parts(b"hello"))
        answer = await stubs.models.UploadBlob(parts(b"something else", digest_of(b"hello")))
        assert (answer.size_bytes, answer.created) == (5, False)

    async def test_what_does_not_match_leaves_nothing(self, stubs, stocked):
        before = sorted(stocked.blobs.folder.iterdir())
        error = await failing(stubs.models.UploadBlob(parts(b"x" * 200_000, digest_of(b"y"))))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error.details().startswith(f'digest mismatch, expected "{digest_of(b"y")}", got "sha256:')
        assert sorted(stocked.blobs.folder.iterdir()) == before

    async def test_what_is_broken_off_leaves_nothing(self, stubs, stocked):
        before = sorted(stocked.blobs.folder.iterdir())
        call = stubs.models.UploadBlob()
        await call.write(models_pb2.UploadBlobRequest(config={"digest": digest_of(b"y")}))
        await call.write(models_pb2.UploadBlobRequest(chunk=b"x" * 100_000))
        await until(lambda: sorted(stocked.blobs.folder.iterdir()) != before)
        call.cancel()
        await until(lambda: sorted(stocked.blobs.folder.iterdir()) == before)

    @pytest.mark.parametrize("digest", ["nonsense", "sha256:12", "sha256:../../x"])
    async def test_digests_that_are_none(self, stubs, digest):
        error = await failing(stubs.models.UploadBlob(parts(b"", digest)))
        assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "invalid digest format")
        error = await failing(stubs.models.StatBlob(models_pb2.StatBlobRequest(digest=digest)))
        assert error.details() == "invalid digest format"

    async def test_a_missing_blob(self, stubs):
        digest = digest_of(b"never")
        error = await failing(stubs.models.StatBlob(models_pb2.StatBlobRequest(digest=digest)))
        assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, f'blob "{digest}" not found')

    async def test_the_digest_comes_first(self, stubs):
        call = stubs.models.UploadBlob(iter([models_pb2.UploadBlobRequest(chunk=b"x")]))
        assert (await failing(call)).details() == "the first message must be `config`"


class TestRegistries:
    """Registries that cannot be reached; those that can are in tests/registry."""

    @pytest.fixture(autouse=True)
    def cut_off(self, monkeypatch):
        for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(variable, "http://127.0.0.1:1")
        for variable in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(variable, "127.0.0.1")

    async def transfer(self, call):
        found = []
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            async for message in call:
                found += [message.progress.status]
        return found, raised.value.details()

    @pytest.mark.parametrize("name", ["", "a b"])
    async def test_pulling_what_has_no_name(self, stubs, name):
        call = stubs.models.PullModel(models_pb2.PullModelRequest(name=name))
        assert await self.transfer(call) == ([], "invalid model name")

    async def test_pulling(self, stubs):
        call = stubs.models.PullModel(models_pb2.PullModelRequest(name="nothere"))
        found, text = await self.transfer(call)
        assert found == ["pulling manifest"]
        assert text == (
            'pull model manifest: Get "https://registry.ollama.ai/v2/library/nothere/manifests/latest": '
            "proxyconnect tcp: dial tcp 127.0.0.1:1: connect: connection refused"
        )

    async def test_a_base_that_is_not_here_is_asked_for(self, stubs):
        request = models_pb2.CreateModelRequest(name="m", from_model="nothere")
        found, text = await self.transfer(stubs.models.CreateModel(request))
        assert found == ["pulling manifest"]
        assert text.startswith('pull model manifest: Get "https://registry.ollama.ai/v2/library/nothere/manifests/')

    async def test_pushing(self, stubs, stocked):
        push = stubs.models.PushModel
        assert await self.transfer(push(models_pb2.PushModelRequest())) == ([], "model is required")
        found, text = await self.transfer(push(models_pb2.PushModelRequest(name="a b")))
        assert text == "unqualified name: registry.ollama.ai/library/a b:latest"
        found, text = await self.transfer(push(models_pb2.PushModelRequest(name="nothere")))
        assert found == ["retrieving manifest", "couldn't retrieve manifest"]
        manifest = stocked.root / "manifests/registry.ollama.ai/library/nothere/latest"
        assert text == f"open {manifest}: no such file or directory"
        found, text = await self.transfer(push(models_pb2.PushModelRequest(name="plain", insecure=True)))
        assert text.startswith('Head "http://registry.ollama.ai/v2/library/plain/blobs/sha256:')
