"""Models that are loaded from the start of a server on."""

import asyncio
import logging
from dataclasses import replace

import pytest
from tests.core.serving.asking import until

from puna.model_settings import ConfiguredModels, ModelSettings
from puna.serving.preload import Preloader
from puna.settings import Settings


def preloading(*names, **more):
    tables = [ModelSettings(name=each, preload=True, **more) for each in names]
    return ConfiguredModels((*tables, ModelSettings(name="talker")))


@pytest.fixture
def settings():
    return Settings(model_settings=preloading("plain", "nosuch", "embedder", options={"num_ctx": 77}))


async def done(preloader):
    await asyncio.gather(*preloader._tasks)


async def test_the_models_are_loaded_as_a_request_would_load_them(serving, caplog):
    with caplog.at_level(logging.INFO, "puna.serving.preload"):
        async with Preloader(serving).running() as preloader:
            await done(preloader)
    assert {each.name: each.context_length for each in serving.loaded()} == {"plain:latest": 77, "embedder:latest": 77}
    assert [each.getMessage() for each in caplog.records] == [
        "preloaded plain",
        "nosuch was not preloaded: model 'nosuch' not found",
        "preloaded embedder",
    ]


async def test_a_reload_loads_what_is_new_alone(serving):
    async with Preloader(serving).running() as preloader:
        await done(preloader)
        await serving.unload("plain")
        new = preloading("plain", "embedder", "native")
        serving.settings.adopt(replace(serving.settings, model_settings=new))
        preloader.start()
        await done(preloader)
        assert await serving.is_loaded("native")
        assert not await serving.is_loaded("plain")
        preloader.start()
        assert not preloader._tasks


async def test_too_many_are_noticed(serving, caplog):
    serving.settings.adopt(replace(serving.settings, max_loaded_models=1))
    async with Preloader(serving).running() as preloader:
        await done(preloader)
    assert "not enough room for all models to preload: plain had to go again" in caplog.text


async def test_the_end_of_the_server_ends_a_load(serving, backend):
    loading, never = asyncio.Event(), asyncio.Event()

    async def load(spec, report):
        loading.set()
        await never.wait()

    backend.load = load
    async with Preloader(serving).running() as preloader:
        await loading.wait()
        assert preloader._tasks
    await until(lambda: not serving.waiting_for_load())
    assert serving.loaded() == []
