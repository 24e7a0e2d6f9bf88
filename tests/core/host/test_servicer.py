import asyncio

import grpc
import pytest

from puna.backend import (
    Backend,
    DeviceMemory,
    Embedding,
    InvalidRequestError,
    KvCacheUsage,
    LoadedModel,
    MemoryEstimate,
    ModelFacts,
    PromptTooLongError,
    UnsupportedError,
)
from puna.backend.v1 import backend_pb2 as wire
from puna.host import convert
from puna.host.channel import ERROR
from puna.host.servicer import SLICE, BackendServicer, sliced


class Model(LoadedModel):
    facts = ModelFacts(context_length=64, parallel=3)
    error = None
    at_step = None
    usage = None
    closed = False

    async def generate(self, request, /):
        yield

    async def tokenize(self, text, /, *, add_special, parse_special):
        if self.error is not None:
            raise self.error
        return [len(text), add_special, parse_special]

    async def detokenize(self, tokens, /, *, special):
        return [bytes([token]) for token in tokens]

    async def embed(self, inputs, /, *, raw=False):
        return [Embedding([float(len(each))], 1) for each in inputs]

    def step(self):
        return self.at_step

    def kv_cache_usage(self):
        return self.usage

    async def aclose(self):
        self.closed = True


class Scripted(Backend):
    error = None

    async def load(self, spec, report, /):
        report(0.5)
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return Model()


class AbortError(Exception):
    def __init__(self, code, details, failure):
        super().__init__(details)
        self.code, self.failure = code, failure


class Context:
    """A call's context as far as the servicer uses one."""

    def __init__(self):
        self.written = []

    def invocation_metadata(self):
        return ()

    async def write(self, message):
        self.written.append(message)

    async def abort(self, code, details="", trailing_metadata=()):
        found = dict(trailing_metadata).get(convert.FAILURE_KEY)
        raise AbortError(code, details, wire.Failure.FromString(found) if found else None)


@pytest.fixture
def backend():
    return Scripted()


@pytest.fixture
def servicer(backend):
    return BackendServicer(lambda: backend)


@pytest.fixture
async def loaded(servicer):
    await servicer.Load(wire.LoadRequest(backend="scripted", path="/m"), Context())
    return servicer


async def test_loading_reports_progress_and_then_the_facts(servicer):
    context = Context()
    await servicer.Load(wire.LoadRequest(backend="scripted", path="/m"), context)
    assert [each.fraction for each in context.written[:-1]] == [0.5]
    assert context.written[-1].loaded.parallel == 3
    with pytest.raises(AbortError) as second:
        await servicer.Load(wire.LoadRequest(backend="scripted"), Context())
    assert second.value.code is grpc.StatusCode.FAILED_PRECONDITION


async def test_nothing_is_served_before_the_model_is_loaded(servicer):
    with pytest.raises(AbortError) as found:
        await servicer.Tokenize(wire.TokenizeRequest(text="a"), Context())
    assert found.value.code is grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize(
    ("error", "code", "logged"),
    [
        (InvalidRequestError("no model file"), grpc.StatusCode.INVALID_ARGUMENT, False),
        (MemoryError("full"), grpc.StatusCode.RESOURCE_EXHAUSTED, False),
        (RuntimeError("a prompt"), grpc.StatusCode.INTERNAL, True),
    ],
)
async def test_an_error_of_a_load_becomes_a_status(servicer, backend, error, code, logged, capfd):
    backend.error = error
    with pytest.raises(AbortError) as found:
        await servicer.Load(wire.LoadRequest(backend="scripted"), Context())
    assert (found.value.code, found.value.failure.message) == (code, str(error))
    said = capfd.readouterr().err
    assert said.startswith(f'{ERROR}"the backend failed: RuntimeError') is logged
    assert "a prompt" not in said


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (PromptTooLongError(9, 8), grpc.StatusCode.INVALID_ARGUMENT, wire.Failure.KIND_CONTEXT_OVERFLOW),
        (UnsupportedError("no"), grpc.StatusCode.UNIMPLEMENTED, wire.Failure.KIND_UNSUPPORTED),
    ],
)
async def test_an_error_of_the_contract_travels_whole(loaded, error, code, kind):
    loaded.models.only.error = error
    with pytest.raises(AbortError) as found:
        await loaded.Tokenize(wire.TokenizeRequest(text="a"), Context())
    assert (found.value.code, found.value.failure.kind) == (code, kind)


async def test_a_long_text_is_cut_in_the_status_only(loaded):
    loaded.models.only.error = InvalidRequestError("x" * 10_000)
    with pytest.raises(AbortError) as found:
        await loaded.Tokenize(wire.TokenizeRequest(text="a"), Context())
    assert len(str(found.value)) < 1000
    assert len(found.value.failure.message) == 10_000


async def test_the_heartbeat_counts_events_where_the_model_counts_no_steps(loaded):
    beat = loaded.Heartbeat
    assert not (await beat(wire.HeartbeatRequest(), Context())).HasField("step")
    hangs, works = loaded.work.begin(), loaded.work.begin()
    first = (await beat(wire.HeartbeatRequest(), Context())).step
    loaded.work.step(works)
    assert (await beat(wire.HeartbeatRequest(), Context())).step == first
    loaded.work.step(hangs)
    assert (await beat(wire.HeartbeatRequest(), Context())).step != first
    loaded.models.only.at_step = 3
    assert (await beat(wire.HeartbeatRequest(), Context())).step == 3


async def test_conversions_let_other_tasks_run():
    turns = 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    assert await sliced(range(3 * SLICE), str) == [str(each) for each in range(3 * SLICE)]
    counting.cancel()
    assert turns >= 3


async def test_closing_frees_the_model_once(loaded):
    model = loaded.models.only
    await loaded.aclose()
    assert model.closed
    assert loaded.models.only is None
    await loaded.aclose()


async def test_a_shared_host_serves_several_models_of_one_backend(servicer):
    for model_id in ("1", "2"):
        await servicer.Load(wire.LoadRequest(backend="scripted", path=model_id, model_id=model_id), Context())
    with pytest.raises(AbortError) as twice:
        await servicer.Load(wire.LoadRequest(backend="scripted", model_id="1"), Context())
    assert twice.value.code is grpc.StatusCode.FAILED_PRECONDITION
    request = wire.DetokenizeRequest(token_ids=[97], model_id="2")
    assert list((await servicer.Detokenize(request, Context())).pieces) == [b"a"]
    await servicer.Unload(wire.UnloadRequest(model_id="2"), Context())
    with pytest.raises(AbortError) as gone:
        await servicer.Detokenize(request, Context())
    assert gone.value.code is grpc.StatusCode.FAILED_PRECONDITION
    assert "1" in servicer.models
    # A load that was given up may have been over already, so that the core asks in any case.
    await servicer.Unload(wire.UnloadRequest(model_id="2"), Context())


async def test_the_heartbeat_counts_the_work_of_the_model_that_it_names(servicer):
    for model_id in ("", "1"):
        await servicer.Load(wire.LoadRequest(backend="scripted", path="m", model_id=model_id), Context())

    async def step(model_id):
        answer = await servicer.Heartbeat(wire.HeartbeatRequest(model_id=model_id), Context())
        return answer.step if answer.HasField("step") else None

    work = servicer.work.begin("1")
    assert await step("") is None
    before = await step("1")
    assert before is not None
    # The other model's work goes on, and this one's does not.
    other = servicer.work.begin("")
    servicer.work.step(other)
    assert await step("1") == before
    assert await step("") is not None
    for model_id, at_step in (("", 3), ("1", 5)):
        with servicer.models.use(model_id) as model:
            model.at_step = at_step
    assert (await step(""), await step("1")) == (3, 5)
    # A core that names none gets the number of the work that waits longest.
    assert await step("unknown") == before
    servicer.work.end(work)


async def note(order, name):
    order.append(name)


async def test_the_backend_is_made_once_and_closed_last(servicer, backend):
    order, made = [], []
    servicer._make_backend = lambda: made.append(1) or backend
    backend.aclose = lambda: note(order, "backend")
    for model_id in ("1", "2"):
        await servicer.Load(wire.LoadRequest(model_id=model_id), Context())
        with servicer.models.use(model_id) as model:
            model.aclose = lambda model_id=model_id: note(order, model_id)
    await servicer.aclose()
    assert (made, order) == ([1], ["1", "2", "backend"])


async def test_the_heartbeat_tells_how_full_each_cache_is(servicer, loaded, capfd):
    loaded.models.only.usage = KvCacheUsage(5, 7)
    answer = await loaded.Heartbeat(wire.HeartbeatRequest(), Context())
    assert list(answer.kv_caches) == [wire.KvCacheUsage(active_tokens=5, cached_tokens=7)]
    # A method that does not work is reported once, and the host stays alive.
    loaded.models.only.usage = "nonsense"
    for _ in range(2):
        assert not (await loaded.Heartbeat(wire.HeartbeatRequest(), Context())).kv_caches
    assert capfd.readouterr().err.count("kv_cache_usage() failed") == 1


async def test_an_estimate_reaches_the_core_without_a_load(servicer, backend, monkeypatch):
    asked = []

    async def estimate_memory(spec, /):
        asked.append(spec.context_length)
        return MemoryEstimate(context_length=9, devices=(DeviceMemory(device="GPU", weights_bytes=4),), process_bytes=2)

    monkeypatch.setattr(backend, "estimate_memory", estimate_memory)
    request = wire.EstimateMemoryRequest(load=wire.LoadRequest(context_length=12))
    answer = await servicer.EstimateMemory(request, Context())
    assert (asked, answer.context_length, answer.parallel, answer.process_bytes) == ([12], 9, 1, 2)
    assert list(answer.devices) == [wire.DeviceMemory(device="GPU", weights_bytes=4)]
    assert not servicer.models


async def test_a_backend_without_estimates_says_so(servicer):
    with pytest.raises(AbortError) as raised:
        await servicer.EstimateMemory(wire.EstimateMemoryRequest(), Context())
    assert raised.value.code is grpc.StatusCode.UNIMPLEMENTED
