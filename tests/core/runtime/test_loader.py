import pytest

from puna import events
from puna.backend import ModelFacts, ModelSpec
from puna.errors import OutOfMemoryError
from puna.runtime.launch import Launched
from puna.runtime.loaded_models import LoadedModels
from puna.runtime.loader import Loader
from puna.runtime.requirements import LeaseKind, ModelRequirements
from puna.settings import Settings


class Model:
    facts = ModelFacts(context_length=8192, parallel=2)

    async def aclose(self):
        pass


class Launcher:
    """Launches at once; `fits` says which context lengths there is room for, given the number of loaded models."""

    def __init__(self, fits=lambda _: True):
        self.fits = fits
        self.contexts = []
        self.upstream = set()
        """Keys of models that take no memory here."""
        self.free = 0
        """Bytes of free memory; 0: unknown."""

    def free_bytes(self):
        return self.free

    def backend_name(self, requirements):
        return "b"

    def takes_memory(self, requirements):
        return requirements.key not in self.upstream

    async def launch(self, requirements, on_progress, *, on_death):
        self.contexts.append(requirements.spec.context_length)
        if not self.fits(requirements.spec.context_length):
            raise OutOfMemoryError("no room")
        return Launched(Model(), "b", 0, takes_memory=self.takes_memory(requirements))


class Job:
    """A job that never has to wait for others."""

    def report(self, progress):
        pass

    async def wait_without_turn(self, awaitable):
        return await awaitable


def need(name, context=8192, file_bytes=0, automatic=()):
    spec = ModelSpec(path=name, context_length=context)
    return ModelRequirements(key=name, name=name, spec=spec, file_bytes=file_bytes, automatic=frozenset(automatic))


@pytest.fixture
def heard():
    """The events about models that were removed or could not be loaded."""
    found = []
    stops = [events.subscribe(kind, found.append) for kind in (events.ModelRemoved, events.ModelLoadFailed)]
    yield found
    for stop in stops:
        stop()


@pytest.fixture
async def models():
    models = LoadedModels()
    yield models
    await models.close()


async def test_a_model_that_meets_the_requirements_is_not_loaded_again(models):
    launcher = Launcher()
    loader = Loader(models, launcher, Settings())
    first = await loader.provide(need("a"), Job())
    assert await loader.provide(need("a"), Job()) is first
    assert loader.satisfies(first, need("a"))
    assert launcher.contexts == [8192]


async def test_other_requirements_load_it_anew(models, heard):
    loader = Loader(models, Launcher(), Settings())
    first = await loader.provide(need("a"), Job())
    second = await loader.provide(need("a", context=4096), Job())
    assert first.removed.is_set()
    assert models.all() == [second]
    assert heard == [events.ModelRemoved(model="a", cause="unloaded")]


async def test_one_too_many_evicts_the_idle_one_of_the_shortest_keep_alive(models, heard):
    loader = Loader(models, Launcher(), Settings(max_loaded_models=2))
    a, b = await loader.provide(need("a"), Job()), await loader.provide(need("b"), Job())
    a.keep_alive, b.keep_alive = 10, 5
    await loader.provide(need("c"), Job())
    assert [each.requirements.name for each in models.all()] == ["a", "c"]
    assert heard == [events.ModelRemoved(model="b", cause="evicted", evicted_for="c")]


async def test_a_large_file_evicts_an_idle_model_but_no_busy_one(models, heard):
    launcher = Launcher()
    launcher.free = 100
    loader = Loader(models, launcher, Settings())
    idle, busy = await loader.provide(need("idle"), Job()), await loader.provide(need("busy"), Job())
    loader.acquire(busy, LeaseKind.SEQUENCE)
    await loader.provide(need("large", file_bytes=81), Job())
    assert idle.removed.is_set()
    assert not busy.removed.is_set()
    assert heard == [events.ModelRemoved(model="idle", cause="evicted", evicted_for="large")]
    loader.release(busy, LeaseKind.SEQUENCE)


async def test_without_room_a_context_that_nothing_set_shrinks(models, heard):
    launcher = Launcher(lambda context: context <= 4096)
    loader = Loader(models, launcher, Settings())
    made = await loader.provide(need("a", context=20000, automatic=["context_length"]), Job())
    assert launcher.contexts == [20000, 4096]
    assert made.requirements.spec.context_length == 4096
    # It was loaded in the end.
    assert heard == []


async def test_without_room_a_context_that_was_asked_for_stays(models, heard):
    launcher = Launcher(lambda _: False)
    loader = Loader(models, launcher, Settings())
    with pytest.raises(OutOfMemoryError):
        await loader.provide(need("a"), Job())
    assert launcher.contexts == [8192]
    assert models.all() == []
    assert heard == [events.ModelLoadFailed(model="a", backend="b", reason="LOAD_FAILED", error="no room")]


async def test_models_that_take_no_memory_are_neither_counted_nor_evicted(models):
    launcher = Launcher()
    launcher.free = 100
    launcher.upstream = {"u1", "u2", "u3"}
    loader = Loader(models, launcher, Settings(max_loaded_models=1))
    for name in ("a", "u1", "u2", "u3"):
        await loader.provide(need(name, file_bytes=99), Job())
    assert [each.requirements.key for each in models.all()] == ["a", "u1", "u2", "u3"]
    await loader.provide(need("b", file_bytes=99), Job())
    assert [each.requirements.key for each in models.all()] == ["u1", "u2", "u3", "b"]


async def test_a_lack_of_memory_evicts_no_model_that_takes_none(models):
    launcher = Launcher(lambda context: context <= 4096)
    launcher.upstream = {"u"}
    loader = Loader(models, launcher, Settings())
    await loader.provide(need("u", context=4096), Job())
    with pytest.raises(OutOfMemoryError):
        await loader.provide(need("a"), Job())
    assert launcher.contexts == [4096, 8192]
    assert models.get("u") is not None


async def test_a_model_that_takes_no_memory_does_not_wait_for_memory(models, monkeypatch):
    async def never():
        raise AssertionError("waited")

    launcher = Launcher()
    launcher.upstream = {"u"}
    monkeypatch.setattr(models, "wait_for_memory", never)
    await Loader(models, launcher, Settings()).provide(need("u"), Job())
