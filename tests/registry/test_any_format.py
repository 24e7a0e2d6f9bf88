"""Models of other formats, and models without files, go to a real registry and come back whole."""

import json

import pytest
from tests.core.models.conftest import Backends
from tests.registry.conftest import Side

from puna.model_name import ModelName
from puna.models.create.create import create
from puna.models.create.request import CreateRequest
from puna.models.layout import manifest as manifests

FILES = {"config.json": b"{}", "sub/model.bin": bytes(range(256)) * 4000, "sub/copy.bin": b"{}", "empty": b""}


@pytest.fixture
def one(side):
    made = side()
    made.store.backends = Backends()
    return made


@pytest.fixture
def two(side):
    made = side()
    made.store.backends = Backends()
    return made


def make(where: Side, name, **fields):
    files = {path: where.store.blobs.add(data).digest for path, data in fields.pop("files", {}).items()}
    request = CreateRequest(name=name, files=files or None, **fields)
    assert [step.status for step in create(where.store, request)][-1] == "success"


def got(where: Side, name):
    return where.store.get(ModelName.parse(name))


async def test_a_folder_keeps_its_names_its_options_and_its_bytes(one, two, name):
    make(one, name, backend="shelf", files=FILES, backend_options={"level": 3}, system="Be brief.")
    assert (await one.push(name))[-1].status == "success"
    assert (await two.pull(name))[-1].status == "success"
    pulled = got(two, name)
    assert {path: blob.read_bytes() for path, blob in pulled.files.items()} == FILES
    assert pulled.config == got(one, name).config
    assert (pulled.system, pulled.digest) == ("Be brief.", digest_of_pushed(one, name))
    pulled.verify(thorough=True, stopped=lambda: False)


def digest_of_pushed(where, name):
    import hashlib

    return hashlib.sha256(where.manifest(name).rstrip(b"\n")).hexdigest()


@pytest.mark.parametrize("more", [{}, {"system": "Be brief."}])
async def test_a_model_without_a_file(one, two, name, more):
    make(one, name, backend="away", upstream="big/model:v1", backend_options={"level": 1}, **more)
    assert (await one.push(name))[-1].status == "success"
    assert (await two.pull(name))[-1].status == "success"
    pulled = got(two, name)
    assert (pulled.config.upstream, pulled.config.backend, pulled.files) == ("big/model:v1", "away", {})
    assert (pulled.config, pulled.system) == (got(one, name).config, more.get("system", ""))


async def test_what_was_pulled_can_be_made_into_another_and_pushed_again(one, two, name):
    make(one, name, backend="shelf", files=FILES)
    await one.push(name)
    await two.pull(name)
    child = name.replace(":v1", "-child:v1")
    make(two, child, base=name, parameters={"temperature": 0.5})
    await two.push(child)
    await one.pull(child)
    assert got(one, child).files.keys() == FILES.keys()
    assert got(one, child).parent_model == got(two, name).name.shortest


async def test_pulled_models_are_updated_and_pruned_like_others(one, two, name):
    make(one, name, backend="shelf", files=FILES)
    await one.push(name)
    await two.pull(name)
    make(one, name, backend="shelf", files={"config.json": b"[]"})
    await one.push(name)
    await two.pull(name)
    pulled = got(two, name)
    assert list(pulled.files) == ["config.json"]
    assert len(two.files()) == len(pulled.manifest.digests)
    two.store.delete(pulled.name)
    assert two.files() == []


async def test_the_manifest_has_the_layers_that_ollama_tolerates(one, name):
    """Ollama ignores layers of unknown types and unknown keys; the media types are checked by no registry."""
    make(one, name, backend="shelf", files=FILES)
    manifest = json.loads(one.manifest(name))
    assert manifest["schemaVersion"] == 2
    assert {each["mediaType"] for each in manifest["layers"]} == {"application/vnd.puna.image.file"}
    assert all(each.keys() == {"mediaType", "digest", "size", "name"} for each in manifest["layers"])
    assert len(manifests.loads(one.manifest(name)).layers) == len(FILES)
