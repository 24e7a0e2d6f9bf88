from pathlib import Path

import pytest
from tests.core.models.conftest import Backends

from puna import errors
from puna.model_name import ModelName
from puna.models.create.request import CreateRequest
from puna.models.layout.config import Config
from puna.models.store import ModelStore
from puna.serving.catalogue import Catalogue

MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture
async def catalogue(tmp_path):
    """A store of one's own with one model."""
    store = ModelStore(tmp_path / "models")
    blob = store.blobs.add((MODELS / "scripted.gguf").read_bytes())
    found = Catalogue(store)
    *steps, model = [step async for step in found.create(CreateRequest(name="m", files={"m.gguf": blob.digest}))]
    assert (steps[-1].status, model.name.shortest) == ("success", "m:latest")
    return found


async def names(catalogue):
    return [each.name.shortest for each in await catalogue.list()]


async def test_a_copy_has_a_name_of_its_own(catalogue):
    await catalogue.copy("m", "n:small")
    assert sorted(await names(catalogue)) == ["m:latest", "n:small"]
    await catalogue.delete("m")
    assert await names(catalogue) == ["n:small"]


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda c: c.copy("m", "a b"), errors.InvalidModelNameError, 'destination "a b" is invalid'),
        (lambda c: c.copy("a b", "m"), errors.InvalidModelNameError, 'source "a b" is invalid'),
        (lambda c: c.copy("nosuch", "n"), errors.ModelNotFoundError, 'model "nosuch" not found'),
        (lambda c: c.delete("nosuch"), errors.ModelNotFoundError, "model 'nosuch' not found"),
        (lambda c: c.delete("a b"), errors.InvalidModelNameError, 'name "a b" is invalid'),
        (lambda c: c.show("nosuch"), errors.ModelNotFoundError, "model 'nosuch:latest' not found"),
        (lambda c: c.show(""), errors.ModelRequiredError, "model is required"),
        (lambda c: c.show("m:cloud"), errors.CloudDisabledError, "remote model details are unavailable"),
    ],
)
async def test_each_operation_has_its_own_words(catalogue, call, error, text):
    with pytest.raises(error, match=text):
        await call(catalogue)


async def test_a_push_needs_a_name(catalogue):
    with pytest.raises(errors.ModelRequiredError):
        async for _ in catalogue.push("", insecure=False):
            pass


async def test_a_store_that_is_gone_is_no_empty_list(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        await Catalogue(ModelStore(tmp_path / "nowhere")).list()


class Offered:
    """One model that a backend offers."""

    def __init__(self, store):
        self.model = store.without_manifest(
            ModelName.parse("away/big/model:v1"),
            Config(backend="away", upstream="big/model:v1", capabilities=("completion", "tools")),
            digest="0" * 64,
            modified_ns=0,
        )

    def owns(self, name):
        return name.startswith("away/")

    async def find(self, name):
        return self.model if name == "away/big/model:v1" else None


@pytest.fixture
def offering(tmp_path):
    store = ModelStore(tmp_path / "models", backends=Backends())
    return Catalogue(store, offered_models=Offered(store))


async def made(catalogue, **fields):
    *steps, model = [event async for event in catalogue.create(CreateRequest(name="mine", **fields))]
    assert model.name.shortest == "mine:latest"
    return [step.status for step in steps]


async def test_a_model_that_a_backend_offers_can_be_the_base(offering):
    assert (await made(offering, base="away/big/model:v1", system="Be brief."))[-1] == "success"
    shown = await offering.show("mine")
    assert (shown.backend, shown.upstream, shown.system) == ("away", "big/model:v1", "Be brief.")
    assert shown.capabilities == ("completion", "tools")
    with pytest.raises(errors.InvalidCreateError, match="is a model of backend 'away'"):
        await made(offering, base="away/big/model:v1", backend="shelf")
    with pytest.raises(errors.InvalidCreateError, match="only a GGUF model can be quantized"):
        await made(offering, base="away/big/model:v1", quantize="q8_0")


async def test_a_model_of_the_store_comes_before_an_offered_one(offering):
    await made(offering, base="away/big/model:v1")
    await offering.copy("mine", "away/big/model:v1")
    offering._offered_models.model = None
    assert (await made(offering, base="away/big/model:v1"))[-1] == "success"
