import asyncio
from dataclasses import replace

import pytest
from tests.core.serving.asking import until

from puna import events
from puna.backend import ModelFacts, ModelSpec
from puna.errors import OutOfMemoryError
from puna.model_settings import ConfiguredModels, ModelSettings
from puna.replica_count import ReplicaCount
from puna.runtime.errors import NodeLostError, RoomTakenError
from puna.runtime.launch import Launched
from puna.runtime.loaded_models import LoadedModels
from puna.runtime.loader import Loader
from puna.runtime.requirements import LeaseKind, ModelRequirements
from puna.settings import Settings


class Model:
    facts = ModelFacts(context_length=8192, parallel=2)

    def kv_cache_usage(self):
        return None

    async def aclose(self):
        pass


class Launcher:
    """Launches at once; `fits` says which context lengths there is room for, given the number of loaded models."""

    def __init__(self, fits=lambda _: True):
        self.fits = fits
        self.contexts = []
        self.upstream = set()
        """Keys of models that take no memory here."""
        self.machines = 1
        self.free = 0
        """Bytes of free memory; 0: unknown."""

        self.shares_weights = False
        """Whether models of one path share their weights."""
        self.taken = lambda: False
        """Whether every place of a cluster is taken."""

    def has_room(self, requirements):
        return not self.taken()

    def free_bytes(self):
        return self.free

    def backend_name(self, requirements):
        return "b"

    def takes_memory(self, requirements):
        return requirements.key not in self.upstream

    def weights(self, requirements):
        return "" if requirements.alone or not self.shares_weights else requirements.spec.path

    async def launch(self, requirements, on_progress, *, on_death, turn=None):
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

    def give_up_turn(self):
        pass

    async def regain_turn(self):
        pass

    def keep_turn(self):
        pass


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


@pytest.mark.parametrize("losses", [1, 2])
async def test_a_load_whose_node_is_lost_is_tried_once_more(models, losses):
    launcher, lost = Launcher(), []

    async def launch(*given, **more):
        if len(lost) < losses:
            lost.append(1)
            raise NodeLostError("gpu:7 has not answered")
        return await Launcher.launch(launcher, *given, **more)

    launcher.launch = launch
    loading = Loader(models, launcher, Settings()).provide(need("a"), Job())
    if losses == 1:
        assert await loading is models.get("a")
    else:
        with pytest.raises(NodeLostError):
            await loading


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


async def test_a_cluster_without_a_place_evicts_idle_models_until_there_is_one(models, heard):
    launcher = Launcher()
    launcher.machines = 9
    loader = Loader(models, launcher, Settings())
    busy, one, two = [await loader.provide(need(each), Job()) for each in ("busy", "one", "two")]
    one.keep_alive, two.keep_alive = 10, 5
    loader.acquire(busy, LeaseKind.SEQUENCE)
    launcher.taken = lambda: len(models.all()) >= 3
    await loader.provide(need("next"), Job())
    assert heard == [events.ModelRemoved(model="two", cause="evicted", evicted_for="next")]
    # With busy models alone the launcher decides: it may wait for a machine.
    launcher.taken = lambda: True
    await loader.provide(need("last"), Job())
    assert [each.requirements.name for each in models.all()] == ["busy", "last"]
    loader.release(busy, LeaseKind.SEQUENCE)


async def test_what_would_be_evicted_is_what_is_evicted(models, heard):
    launcher = Launcher()
    loader = Loader(models, launcher, configured(PINNED, most=3, large=["b", "large"], rich=["pinned", "rich"]))

    async def evicts(requirements):
        """Check the forecast of a load, and return the names of the models that it evicts."""
        told = loader.evictions(requirements)
        heard.clear()
        try:
            await loader.provide(requirements, Job())
        except RoomTakenError:
            assert told.blocked
        else:
            assert not told.blocked
        found = [each.model for each in heard]
        assert [each.requirements.name for each in told.models] == found
        return found

    for number, name in enumerate("abc"):
        (await loader.provide(need(name), Job())).keep_alive = number
    assert await evicts(need("a", context=4096)) == ["a"]
    assert await evicts(need("large")) == ["b"]
    models.get("c").keep_alive = 1
    assert await evicts(need("d")) == ["c"]
    # It does not fit beside any idle model, and one is busy.
    busy = models.get("a")
    loader.acquire(busy, LeaseKind.SEQUENCE)
    launcher.free = 100
    assert await evicts(need("e", file_bytes=95)) == ["d", "large"]
    loader.release(busy, LeaseKind.SEQUENCE)
    # A cluster without a place, as long as no model has ended.
    launcher.taken = lambda: len(models.all()) >= 2
    models.get("a").keep_alive = 9
    assert await evicts(need("pinned")) == ["a"]
    launcher.taken = lambda: False
    assert await evicts(need("rich")) == []
    launcher.upstream = {"upstream"}
    assert await evicts(need("upstream", file_bytes=99)) == []


async def test_each_machine_has_three_models_by_default(models):
    launcher = Launcher()
    launcher.machines = 2
    loader = Loader(models, launcher, Settings())
    for name in "abcdefg":
        await loader.provide(need(name), Job())
    assert len(models.all()) == 6


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


def configured(*tables, most=2, **sets):
    models = ConfiguredModels(tuple(tables), {name: tuple(members) for name, members in sets.items()})
    return Settings(max_loaded_models=most, model_settings=models)


PINNED = ModelSettings(name="pinned", pin=True)


async def names_after(loader, models, *names):
    for name in names:
        await loader.provide(need(name), Job())
    return [each.requirements.name for each in models.all()]


async def test_a_pinned_model_stays_whatever_the_others_need(models):
    launcher = Launcher()
    loader = Loader(models, launcher, configured(PINNED))
    # It would be the first to go: its keep-alive is the shortest.
    first = await loader.provide(need("pinned"), Job())
    first.keep_alive = 0.001
    assert await names_after(loader, models, "b", "c") == ["pinned", "c"]
    launcher.free = 100
    await loader.provide(need("large", file_bytes=81), Job())
    assert [each.requirements.name for each in models.all()] == ["pinned", "large"]
    launcher.fits = lambda context: len(models.all()) < 2 or context <= 4096
    await loader.provide(need("larger", context=20000, automatic=["context_length"]), Job())
    assert [each.requirements.name for each in models.all()] == ["pinned", "larger"]
    models.evict_excess(models.all()[1], 1)
    assert not first.removed.is_set()


async def test_a_pinned_model_is_loaded_anew_for_other_requirements(models):
    loader = Loader(models, Launcher(), configured(PINNED, most=1))
    first = await loader.provide(need("pinned"), Job())
    second = await loader.provide(need("pinned", context=4096), Job())
    assert first.removed.is_set()
    assert second.pinned


async def test_where_all_are_pinned_there_is_no_room(models, heard):
    loader = Loader(models, Launcher(), configured(PINNED, most=1))
    await loader.provide(need("pinned"), Job())
    with pytest.raises(RoomTakenError, match="pinned models take all 1 places; OLLAMA_MAX_LOADED_MODELS"):
        await loader.provide(need("b"), Job())
    assert heard == []
    # One that a request has unloaded makes room as soon as it is idle.
    models.all()[0].unloading = True
    assert await names_after(loader, models, "b") == ["b"]


async def test_the_models_of_a_set_take_turns(models, heard):
    loader = Loader(models, Launcher(), configured(most=9, large=["a", "B:latest"], other=["b", "c"]))
    assert await names_after(loader, models, "a", "d", "c") == ["a", "d", "c"]
    assert await names_after(loader, models, "b") == ["d", "b"]
    assert await names_after(loader, models, "c", "a") == ["d", "c", "a"]
    assert [(each.model, each.cause, each.evicted_for) for each in heard] == [
        ("a", "evicted", "b"),
        ("c", "evicted", "b"),
        ("b", "evicted", "c"),
    ]


async def test_a_busy_model_of_the_set_is_waited_for(models):
    loader = Loader(models, Launcher(), configured(most=9, large=["a", "b"]))
    busy = await loader.provide(need("a"), Job())
    loader.acquire(busy, LeaseKind.SEQUENCE)
    waiting = asyncio.ensure_future(loader.provide(need("b"), Job()))
    await until(lambda: busy.evicting)
    assert not waiting.done()
    loader.release(busy, LeaseKind.SEQUENCE)
    made = await waiting
    assert models.all() == [made]


async def test_a_set_binds_models_that_take_no_memory_too(models):
    launcher = Launcher()
    launcher.upstream = {"a", "b"}
    loader = Loader(models, launcher, configured(large=["a", "b"]))
    assert await names_after(loader, models, "a", "b") == ["b"]


async def test_a_model_of_the_set_that_was_loaded_beside_goes(models):
    """A load that makes no progress loses its turn, and others are loaded meanwhile."""
    launcher, beside = Launcher(), []
    loader = Loader(models, launcher, configured(most=9, large=["a", "b"]))

    launch = launcher.launch

    async def slow(requirements, on_progress, *, on_death, turn):
        if requirements.name == "a" and not beside:
            beside.append(await loader.provide(need("b"), Job()))
        return await launch(requirements, on_progress, on_death=on_death, turn=turn)

    launcher.launch = slow
    made = await loader.provide(need("a"), Job())
    assert models.all() == [made]
    assert beside[0].removed.is_set()


async def test_a_name_of_the_same_file_may_pin_it(models):
    loader = Loader(models, Launcher(), configured(PINNED, most=1, large=["copy", "b"]))
    made = await loader.provide(need("copy"), Job())
    assert not made.pinned
    made.names.add("pinned")  # as a lease does
    assert made.pinned
    with pytest.raises(RoomTakenError, match="b excludes a model that is pinned"):
        await loader.provide(need("b"), Job())


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


def adapted(name, *adapters, path="base", **fields):
    """A model of a base with adapters."""
    wanted = need(name, **fields)
    return replace(wanted, spec=replace(wanted.spec, path=path, adapter_paths=adapters))


@pytest.fixture
def sharing(models):
    """Loads models whose launcher lets those of one base share the weights."""
    launcher = Launcher()
    launcher.shares_weights = True

    def sharing(**settings):
        return launcher, Loader(models, launcher, Settings(**settings))

    return sharing


async def test_models_that_share_weights_take_one_place(models, sharing, heard):
    _, loader = sharing(max_loaded_models=2)
    for each in (adapted("plain"), adapted("a", "1"), adapted("b", "2"), need("c")):
        (await loader.provide(each, Job())).keep_alive = 10 if each.name == "c" else 5
    assert {each.requirements.name for each in models.all()} == {"plain", "a", "b", "c"}
    assert len({each.weights for each in models.all()}) == 2
    assert loader.evictions(adapted("d", "3")).models == ()
    assert loader.evictions(adapted("d", "3")).weights_loaded
    # One more base needs the place of another one, that is, of all models that share it.
    evictions = loader.evictions(need("e"))
    assert not evictions.weights_loaded
    await loader.provide(need("e"), Job())
    assert {each.requirements.name for each in models.all()} == {"c", "e"}
    assert [each.requirements.name for each in evictions.models] == ["a", "b", "plain"]


async def test_weights_of_a_busy_model_are_not_evicted_in_parts(models, sharing):
    _, loader = sharing(max_loaded_models=2)
    busy, idle, other = [
        await loader.provide(each, Job()) for each in (adapted("a", "1"), adapted("b", "2"), need("c"))
    ]
    busy.acquire(LeaseKind.SEQUENCE)
    idle.keep_alive, other.keep_alive = 1, 100
    await loader.provide(need("d"), Job())
    assert {each.requirements.name for each in models.all()} == {"a", "b", "d"}


async def test_a_further_model_needs_memory_for_its_adapters_alone(models, sharing):
    launcher, loader = sharing()
    await loader.provide(adapted("a", "1", file_bytes=90), Job())
    launcher.free = 100
    await loader.provide(replace(adapted("b", "2", file_bytes=90), adapter_bytes=10), Job())
    assert len(models.all()) == 2
    # Adapters that are too large need the place of an idle model, as a file would.
    await loader.provide(replace(adapted("c", "3", file_bytes=90), adapter_bytes=90), Job())
    assert len(models.all()) < 3


async def test_models_with_replicas_share_no_weights(models, sharing):
    _, loader = sharing(replicas=ReplicaCount(1, 2))
    pooled = await loader.provide(adapted("a", "1"), Job())
    assert pooled.weights == ""
    assert pooled.requirements.alone
    assert not loader.evictions(adapted("b", "2")).weights_loaded


async def test_weights_are_counted_for_one_of_the_models_that_are_left(models, sharing):
    launcher, loader = sharing()
    shares = {"a": 0, "b": 1000, "c": 1000}

    async def launch(requirements, on_progress, *, on_death, turn=None):
        model = Model()
        shared = shares[requirements.name]
        model.facts = replace(Model.facts, size_bytes=1010 - shared, shared_bytes=shared, shared_vram_bytes=shared // 2)
        return Launched(model, "b", 0)

    launcher.launch = launch
    first, *_ = [await loader.provide(adapted(name, name), Job()) for name in shares]
    assert {each.name: each.size_bytes for each in models.entries()} == {"a": 1010, "b": 10, "c": 10}
    models.remove(first)
    assert {each.name: each.size_bytes for each in models.entries()} == {"b": 1010, "c": 10}
    assert sum(each.vram_bytes for each in models.all()) == 500
    # The first model comes back and finds the weights loaded.
    shares["a"] = 1000
    await loader.provide(adapted("a", "a"), Job())
    assert sum(each.size_bytes for each in models.all()) == 1030
    for name in ("b", "c"):
        models.remove(next(each for each in models.all() if each.requirements.name == name))
    assert [each.size_bytes for each in models.entries()] == [1010]


class Turn(Job):
    """A job that says when it gives up the turn."""

    def __init__(self):
        self.given_up = asyncio.Event()

    def give_up_turn(self):
        self.given_up.set()


def placing(launcher):
    """Let loads end when the test says so, with a place from the start; return the events, by model."""
    ends = {}
    launch = launcher.launch

    async def slow(requirements, on_progress, *, on_death, turn):
        turn.placed()
        await ends.setdefault(requirements.name, asyncio.Event()).wait()
        return await launch(requirements, on_progress, on_death=on_death)

    launcher.launch = slow
    return ends


async def load_beside(loader, launcher, first):
    """Begin to load a model; return its task, and the events that end loads."""
    ends, job = placing(launcher), Turn()
    task = asyncio.ensure_future(loader.provide(first, job))
    await job.given_up.wait()
    return task, ends


async def test_models_are_loaded_beside_each_other_as_long_as_there_is_memory_for_all(models):
    launcher = Launcher()
    launcher.free = 100
    loader = Loader(models, launcher, Settings(max_loaded_models=9))
    first, ends = await load_beside(loader, launcher, need("a", file_bytes=40))
    assert not loader.must_wait(need("b", file_bytes=40))
    # Its files alone would fit, and with those of the first they take more than 80 %.
    assert loader.must_wait(need("c", file_bytes=41))
    launcher.upstream.add("remote")
    assert not loader.must_wait(need("remote", file_bytes=99))
    ends["a"].set()
    await first
    assert not loader.must_wait(need("c", file_bytes=41))


async def test_a_load_takes_a_place(models):
    launcher = Launcher()
    loader = Loader(models, launcher, Settings(max_loaded_models=1))
    first, ends = await load_beside(loader, launcher, need("a"))
    assert loader.must_wait(need("b"))
    ends["a"].set()
    await first
    assert not loader.must_wait(need("b"))  # it evicts


async def test_a_full_cluster_is_waited_for_while_models_are_loaded(models):
    launcher = Launcher()
    loader = Loader(models, launcher, Settings(max_loaded_models=9))
    first, ends = await load_beside(loader, launcher, need("a"))
    launcher.taken = lambda: True
    assert loader.must_wait(need("b"))
    ends["a"].set()
    await first


async def test_models_that_would_share_weights_or_exclude_each_other_are_not_loaded_at_once(models):
    launcher = Launcher()
    launcher.shares_weights = True
    loader = Loader(models, launcher, configured(most=9, large=["a", "rival"]))
    first, ends = await load_beside(loader, launcher, need("a"))
    assert loader.must_wait(replace(need("adapted"), spec=ModelSpec(path="a")))
    assert loader.must_wait(need("rival"))
    assert not loader.must_wait(need("other"))
    ends["a"].set()
    await first


async def test_a_load_whose_node_is_lost_waits_for_no_load_that_leaves_it_room(models):
    launcher, lost = Launcher(), []
    loader = Loader(models, launcher, Settings(max_loaded_models=9))
    first, ends = await load_beside(loader, launcher, need("a"))
    slow = launcher.launch

    async def launch(requirements, on_progress, **told):
        if not lost:
            lost.append(1)
            raise NodeLostError("gpu:7 has not answered")
        return await slow(requirements, on_progress, **told)

    launcher.launch = launch
    ends["b"] = asyncio.Event()
    ends["b"].set()
    await loader.provide(need("b"), Job())
    assert not first.done()
    ends["a"].set()
    await first
