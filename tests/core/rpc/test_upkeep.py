import os
import shutil
from contextlib import contextmanager
from dataclasses import replace

import grpc
import pytest
from tests.core.rpc.test_models import failing
from tests.core.serving.conftest import MODELS
from tests.core.serving.conftest import stocked as shared

import puna.auth.caller as caller_module
from puna.auth.caller import Caller
from puna.auth.keys import ApiKey
from puna.errors import NotLocalError
from puna.model_name import ModelName
from puna.models.store import ModelStore
from puna.rpc.upkeep import check_local
from puna_client.v1 import models_pb2

__all__ = ["shared"]


@pytest.fixture
def stocked(shared, tmp_path):
    """A store of our own to change."""
    shutil.copytree(shared.root, tmp_path / "models")
    return ModelStore(tmp_path / "models")


def test_the_address_of_a_caller_says_nothing():
    """Behind a proxy on the same machine every caller is on loopback."""
    with entered(Caller(local=False)), pytest.raises(NotLocalError):
        check_local()


KEY = ApiKey(id="1", name="importer", digest="")


@pytest.mark.parametrize("caller", [Caller(local=True), Caller(key=replace(KEY, local=True))])
def test_the_unix_socket_or_a_key_lets_callers_name_files(caller):
    with entered(caller):
        check_local()


def test_other_keys_do_not():
    with entered(Caller(key=KEY)), pytest.raises(NotLocalError):
        check_local()


@contextmanager
def entered(caller):
    token = caller_module._CURRENT.set(caller)
    try:
        yield
    finally:
        caller_module._CURRENT.reset(token)


async def told(call):
    return [(each.WhichOneof("event"), each) async for each in call]


async def test_an_import_tells_its_plan_its_steps_and_its_end(stubs, stocked, tmp_path):
    (tmp_path / "Kid-Q8_0.gguf").write_bytes((MODELS / "scripted.gguf").read_bytes() + b"new")
    request = models_pb2.ImportModelsRequest(paths=[str(tmp_path / "Kid-Q8_0.gguf")], dry_run=True)
    ((kind, plan),) = await told(stubs.models.ImportModels(request))
    assert (kind, plan.plan.models[0].name) == ("plan", "kid:q8_0")
    assert plan.plan.models[0].size_bytes == (tmp_path / "Kid-Q8_0.gguf").stat().st_size
    request.dry_run = False
    request.link_mode = models_pb2.LINK_MODE_SYMBOLIC
    news = await told(stubs.models.ImportModels(request))
    assert [kind for kind, _ in news if kind != "progress"] == ["plan", "imported"]
    answer = await stubs.models.GetModel(models_pb2.GetModelRequest(name="kid:q8_0"))
    (file,) = answer.in_place
    assert (file.path, file.link_kind) == (str(tmp_path / "Kid-Q8_0.gguf"), models_pb2.LINK_KIND_SYMBOLIC)
    assert file.state == models_pb2.FILE_STATE_UNCHANGED


async def test_one_that_fails_stops_no_other(stubs, stocked, tmp_path, monkeypatch):
    for name in ("a.gguf", "b.gguf"):
        shutil.copy(MODELS / "scripted.gguf", tmp_path / name)

    def refuse(self, target):
        raise OSError(18, os.strerror(18))

    monkeypatch.setattr("pathlib.Path.hardlink_to", refuse)
    request = models_pb2.ImportModelsRequest(paths=[str(tmp_path / "a.gguf"), str(tmp_path / "b.gguf")])
    request.link_mode = models_pb2.LINK_MODE_HARD
    stocked.blobs.remove([each.name for each in stocked.blobs.files()], frozenset)
    news = await told(stubs.models.ImportModels(request))
    failed = [(each.failed.name, each.failed.text) for kind, each in news if kind == "failed"]
    assert failed == [(f"{name}:latest", f"{tmp_path}/{name}.gguf: Invalid cross-device link") for name in ("a", "b")]


@pytest.mark.parametrize(
    ("paths", "name", "text"),
    [
        ([], "", "no path is given"),
        (["a.gguf"], "", "a.gguf: the path must be absolute"),
        (["/nowhere.gguf"], "", "/nowhere.gguf: no such file or directory"),
        ([str(MODELS / "scripted.gguf")], "a b", "invalid model name"),
        ([str(MODELS / "scripted.gguf"), str(MODELS / "embedder.gguf")], "m", "one name cannot be given to 2 models"),
    ],
)
async def test_what_cannot_be_imported(stubs, paths, name, text):
    call = stubs.models.ImportModels(models_pb2.ImportModelsRequest(paths=paths, name=name))
    error = await failing(told(call))
    assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, text)


async def test_a_look_at_the_store(stubs, stocked):
    path = stocked.get(ModelName.parse("plain")).model_path
    os.truncate(path, 50_000)
    seen = await told(stubs.models.CheckStore(models_pb2.CheckStoreRequest(repair=True)))
    assert (seen[0][0], seen[-1][0]) == ("progress", "report")
    found = [each.finding for kind, each in seen if kind == "finding" and each.finding.is_fault]
    assert [(each.kind, each.path, each.repaired) for each in found] == [
        (models_pb2.FINDING_KIND_DAMAGED_BLOB, str(path), True)
    ]
    assert list(found[0].models)
    assert seen[-1][1].report.repaired_count >= 1
