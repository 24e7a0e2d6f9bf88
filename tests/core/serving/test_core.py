import pytest

from puna.errors import ModelNotFoundError
from puna.serving.requests import RequestOptions


async def test_loading_returns_the_models_row_and_unloading_says_whether_it_was_there(serving):
    entry = await serving.load("plain", RequestOptions(keep_alive=60.0))
    assert entry.name == "plain:latest"
    assert [each.name for each in serving.loaded()] == ["plain:latest"]
    assert serving.waiting_for_load() == 0
    assert await serving.unload("plain")
    assert serving.loaded() == []
    assert not await serving.unload("plain")


async def test_an_unknown_model_is_neither_loaded_nor_unloaded(serving):
    for call in (serving.load, serving.unload):
        with pytest.raises(ModelNotFoundError):
            await call("nosuch")


async def test_plugins_are_those_of_the_registry(serving):
    assert [each.name for each in serving.plugins()] == ["played"]


async def test_blobs_are_the_stores(serving, stocked):
    assert serving.blobs is stocked.blobs
    serving.check_readable()
