from pathlib import Path

import pytest

from puna import errors
from puna.models.create.request import CreateRequest
from puna.models.store import ModelStore
from puna.serving.catalogue import Catalogue

MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture
async def catalogue(tmp_path):
    """A store of one's own with one model."""
    store = ModelStore(tmp_path / "models")
    blob = store.blobs.add((MODELS / "scripted.gguf").read_bytes())
    found = Catalogue(store)
    steps = [step async for step in found.create(CreateRequest(name="m", files={"m.gguf": blob.digest}))]
    assert steps[-1].status == "success"
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
