"""Whether a model fits, and with which context, over a host that answers as told."""

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from puna.backend import DeviceMemory, MemoryEstimate, ModelFacts, ModelSpec, UnsupportedError
from puna.backend.v1 import backend_pb2 as wire
from puna.errors import BackendFailedError, QueueFullError
from puna.host.convert_memory import estimate_to_wire
from puna.model_settings import ConfiguredModels
from puna.runtime import estimates
from puna.runtime.admission import ConcurrencyLimiter
from puna.runtime.estimates import Fit, MemoryEstimator
from puna.runtime.keep_alive import PooledModel
from puna.runtime.loaded_models import LoadedModels
from puna.runtime.loader import Loader
from puna.runtime.replicas import Replica
from puna.runtime.requirements import ModelRequirements
from puna.settings import Settings

TOKEN_BYTES = 10
WEIGHTS_BYTES = 1000
PROCESS_BYTES = 500


class Launcher:
    """Starts hosts whose models take 1500 bytes and ten for each token of the context."""

    machines = 1

    def __init__(self):
        self.free = 0
        self.declares = True
        self.memory = True
        self.trained = 8192
        self.devices = ()
        """Further devices of each estimate."""
        self.error = None
        self.delay = 0.0
        self.freed = None
        """Bytes that evictions free, as the last host was told."""
        self.hosts = 0
        self.most_hosts = 0

    def free_bytes(self):
        return self.free

    def has_room(self, requirements):
        return True

    def takes_memory(self, requirements):
        return self.memory

    def weights(self, requirements):
        return ""

    async def checked(self, requirements):
        return requirements

    async def manifest(self, requirements):
        capabilities = SimpleNamespace(memory_estimate=self.declares)
        return SimpleNamespace(name="b", capabilities=capabilities, host=SimpleNamespace(memory=self.memory))

    @asynccontextmanager
    async def estimating(self, requirements, freed_bytes, *, weights_loaded):
        self.hosts += 1
        self.freed = freed_bytes
        self.most_hosts = max(self.hosts, self.most_hosts)
        try:
            request = wire.LoadRequest(context_length=requirements.spec.context_length)
            yield SimpleNamespace(stub=SimpleNamespace(EstimateMemory=self._estimate)), request
        finally:
            self.hosts -= 1

    async def _estimate(self, request):
        await asyncio.sleep(self.delay)
        if self.error is not None:
            raise self.error
        length = min(request.load.context_length, self.trained or 1 << 30)
        main = DeviceMemory(weights_bytes=WEIGHTS_BYTES, kv_cache_bytes=length * TOKEN_BYTES)
        return estimate_to_wire(
            MemoryEstimate(
                context_length=length,
                max_context_length=self.trained,
                devices=(main, *self.devices),
                process_bytes=PROCESS_BYTES,
            )
        )


@pytest.fixture
def launcher():
    return Launcher()


@pytest.fixture
async def models():
    models = LoadedModels()
    yield models
    await models.close()


@pytest.fixture
def estimate(launcher, models):
    """Estimate a model with a context of 4096 tokens, unless told otherwise."""
    settings = Settings(max_queue=2)
    estimator = MemoryEstimator(launcher, Loader(models, launcher, settings), settings)
    return lambda **fields: estimator.estimate(need("new", **fields))


def need(name, context_length=4096, file_bytes=0):
    spec = ModelSpec(path=name, context_length=context_length)
    return ModelRequirements(key=name, name=name, spec=spec, file_bytes=file_bytes)


def loaded(models, name, **facts):
    class Model:
        def __init__(self):
            self.facts = ModelFacts(context_length=4096, **facts)

        def kv_cache_usage(self):
            return None

        async def aclose(self):
            pass

    host = Replica(model=Model(), pid=1, limiter=ConcurrencyLimiter(1))
    pooled = PooledModel(requirements=need(name), backend="b", first=host, keep_alive=300.0)
    models.add(pooled)
    return pooled


def bytes_for(tokens):
    return WEIGHTS_BYTES + PROCESS_BYTES + tokens * TOKEN_BYTES


async def test_a_model_fits_and_so_does_its_longest_context(estimate, launcher):
    launcher.free = bytes_for(8192)
    found = await estimate()
    assert (found.fit, found.largest_context_length, found.memory.context_length) == (Fit.FITS, 8192, 4096)
    assert (found.backend, found.free_bytes, launcher.hosts) == ("b", launcher.free, 0)


@pytest.mark.parametrize(
    ("tokens", "fit", "largest"),
    [
        (8191, Fit.FITS, 7936),
        (4096, Fit.FITS, 4096),
        (4095, Fit.DOES_NOT_FIT, 3840),
        (256, Fit.DOES_NOT_FIT, 256),
        (255, Fit.DOES_NOT_FIT, 0),
    ],
)
async def test_the_longest_context_that_fits_is_found(estimate, launcher, tokens, fit, largest):
    launcher.free = bytes_for(tokens)
    found = await estimate()
    assert (found.fit, found.largest_context_length) == (fit, largest)


async def test_a_context_below_the_step_may_be_all_that_a_model_has(estimate, launcher):
    launcher.trained = 100
    launcher.free = bytes_for(100)
    assert (await estimate()).largest_context_length == 100


async def test_without_a_length_of_the_training_the_limit_of_the_server_holds(estimate, launcher):
    launcher.trained = 0
    launcher.free = bytes_for(10**6)
    assert (await estimate()).largest_context_length == 10**6 // 256 * 256


async def test_nothing_is_claimed_where_the_free_memory_is_unknown(estimate):
    found = await estimate()
    assert (found.fit, found.largest_context_length) == (Fit.UNKNOWN, 0)
    assert found.memory is not None


async def test_each_device_must_have_room(estimate, launcher, models):
    launcher.free = bytes_for(8192)
    launcher.devices = (DeviceMemory(device="CUDA0", weights_bytes=300, compute_bytes=1, free_bytes=300),)
    assert (await estimate()).fit is Fit.DOES_NOT_FIT
    launcher.devices = (DeviceMemory(device="CUDA0", weights_bytes=300, free_bytes=300),)
    assert (await estimate()).fit is Fit.FITS


async def test_models_that_would_be_evicted_leave_their_memory(estimate, launcher, models):
    loaded(models, "old", size_bytes=30_000)
    launcher.free = 20_000
    # The file takes more than 80 % of the free memory, which evicts an idle model.
    found = await estimate(file_bytes=19_000)
    assert ([each.name for each in found.evicted], found.fit) == (["old"], Fit.AFTER_EVICTION)
    assert launcher.freed == 30_000
    assert models.get("old") is not None
    assert (await estimate(file_bytes=10)).fit is Fit.DOES_NOT_FIT


async def test_a_busy_model_is_evicted_only_for_its_number(estimate, launcher, models):
    for name in ("a", "b", "c"):
        loaded(models, name, size_bytes=100).lease_count = 1
    launcher.free = bytes_for(4096)
    assert [each.name for each in (await estimate(file_bytes=launcher.free)).evicted] == ["a"]


async def test_pinned_models_may_leave_no_place(estimate, launcher, models):
    for name in ("a", "b", "c"):
        loaded(models, name, size_bytes=30_000).pins = lambda _: True
    launcher.free = bytes_for(8192)
    # A pinned model is evicted neither for a file nor for its number.
    found = await estimate(file_bytes=launcher.free)
    assert (found.evicted, found.fit, found.largest_context_length) == ((), Fit.DOES_NOT_FIT, 0)


async def test_models_that_exclude_each_other_are_evicted(launcher, models):
    rules = ConfiguredModels(sets={"one at a time": ("new", "old")})
    settings = Settings(model_settings=rules)
    estimator = MemoryEstimator(launcher, Loader(models, launcher, settings), settings)
    loaded(models, "old", size_bytes=30_000).names.add("old")
    loaded(models, "other", size_bytes=30_000).names.add("other")
    launcher.free = 20_000
    found = await estimator.estimate(need("new"))
    assert ([each.name for each in found.evicted], found.fit) == (["old"], Fit.AFTER_EVICTION)


async def test_a_model_that_is_loaded_makes_room_for_itself(estimate, launcher, models):
    loaded(models, "new", size_bytes=bytes_for(4096))
    launcher.free = 1000
    found = await estimate()
    assert (found.fit, found.evicted, found.free_bytes) == (Fit.FITS, (), 1000)
    # With another context it is loaded anew.
    found = await estimate(context_length=100)
    assert (found.fit, [each.name for each in found.evicted]) == (Fit.AFTER_EVICTION, ["new"])


@pytest.mark.parametrize("silent", ["declares", "memory"])
async def test_a_backend_that_declares_no_estimates_starts_no_host(estimate, launcher, silent):
    setattr(launcher, silent, False)
    found = await estimate(file_bytes=7)
    assert (found.memory, found.fit, found.file_bytes, launcher.most_hosts) == (None, Fit.UNKNOWN, 7, 0)


async def test_a_backend_may_be_unable_to_tell_for_one_model(estimate, launcher):
    launcher.error = UnsupportedError("not of this one")
    assert (await estimate()).memory is None


async def test_one_host_at_a_time_and_a_bound_on_those_who_wait(estimate, launcher):
    launcher.free, launcher.delay = bytes_for(8192), 0.01
    answers = await asyncio.gather(*(estimate() for _ in range(4)), return_exceptions=True)
    assert [type(each) for each in answers].count(QueueFullError) == 1
    assert launcher.most_hosts == 1
    # The refused one has left no trace.
    assert (await estimate()).fit is Fit.FITS


async def test_a_backend_that_does_not_answer_is_given_up(estimate, launcher, monkeypatch):
    monkeypatch.setattr(estimates, "ESTIMATE_SECONDS", 0.05)
    launcher.delay = 60
    with pytest.raises(BackendFailedError, match="has given no estimate"):
        await estimate()
    assert launcher.hosts == 0


async def test_an_impossible_estimate_is_an_error(estimate, launcher):
    launcher.devices = (DeviceMemory(weights_bytes=-1),)
    with pytest.raises(BackendFailedError, match="breaks its contract"):
        await estimate()
