"""Requests of batches run as their owners."""

import asyncio
from contextlib import asynccontextmanager

import grpc
import pytest
from tests.core.batch.conftest import until
from tests.core.rpc.conftest import Stubs
from tests.core.rpc.test_batch import create, embed, generate, get, refused, results

from puna.auth.gate import Gate
from puna.auth.keys import KeyFile
from puna.batch.core import Batches
from puna.rpc.batch_items import ItemPerformer
from puna.rpc.server import serving as running
from puna_client.v1 import batch_pb2


class Key:
    """A caller with a key."""

    def __init__(self, stubs, key, text):
        self.id = key.id
        self._metadata = (("authorization", f"Bearer {text}"),)
        self.batch = self
        self._stub = stubs.batch

    def __getattr__(self, name):
        method = getattr(self._stub, name)
        return lambda request, metadata=(): method(request, metadata=(*self._metadata, *metadata))


@pytest.fixture
async def keys(tmp_path):
    return KeyFile(tmp_path / "keys.json", clock=iter(range(1_000_000)).__next__)


@pytest.fixture
async def gate(keys):
    return Gate(keys)


@pytest.fixture
async def kept(serving, tmp_path):
    return Batches(tmp_path / "batches", serving.settings.limits)


@pytest.fixture
async def key(serving, gate, keys, kept):
    """Return a function that makes a caller with a key of its own."""

    @asynccontextmanager
    async def server():
        async with (
            kept.running(serving.activity, ItemPerformer(serving, gate), settle_seconds=0),
            running(serving, "127.0.0.1:0", gate=gate, batches=kept) as address,
            grpc.aio.insecure_channel(address) as channel,
        ):
            yield Stubs(channel)

    async with server() as stubs:
        yield lambda name, **fields: Key(stubs, *keys.create(name=name, **fields))


async def test_a_batch_belongs_to_its_key(key, backend):
    one, other = key("one"), key("other")
    new = await create(one, generate("g"))
    await results(one, new.id, follow=True)
    for call in (
        get(other, new.id),
        results(other, new.id),
        other.CancelBatch(batch_pb2.CancelBatchRequest(id=new.id)),
        other.DeleteBatch(batch_pb2.DeleteBatchRequest(id=new.id)),
        other.DeleteBatchResults(batch_pb2.DeleteBatchResultsRequest(id=new.id)),
    ):
        assert (await refused(call))[0] == "NOT_FOUND"
    assert (await other.ListBatches(batch_pb2.ListBatchesRequest())).batches == []
    assert len((await one.ListBatches(batch_pb2.ListBatchesRequest())).batches) == 1


async def test_a_key_without_the_permission_has_no_batches(key):
    reader = key("reader", allow=("read",))
    assert (await refused(reader.ListBatches(batch_pb2.ListBatchesRequest())))[0] == "PERMISSION_DENIED"
    assert (await refused(create(reader, generate("g"))))[0] == "PERMISSION_DENIED"


async def test_a_key_runs_the_models_that_it_allows(key, backend):
    backend.parts.append(["x"])
    caller = key("one", models=("plain",))
    new = await create(caller, generate("mine"), generate("other", model="talker"))
    found = {each.custom_id: each for each in await results(caller, new.id, follow=True)}
    assert found["mine"].generate.text == "x"
    assert found["other"].error.reason == "MODEL_NOT_ALLOWED"


async def test_what_the_server_does_not_offer_is_an_error(key, gate, backend):
    caller = key("one")
    gate.expose = frozenset({"batch", "generate"})
    new = await create(caller, generate("g"), embed("e", "x"))
    found = {each.custom_id: each for each in await results(caller, new.id, follow=True)}
    assert found["e"].error.reason == "NOT_EXPOSED"
    assert found["g"].HasField("generate")
    gate.expose = frozenset({"generate"})
    assert (await refused(create(caller, generate("g"))))[0] == "NOT_EXPOSED"


async def test_usage_is_that_of_the_key(key, gate, backend):
    backend.parts += [["one", "two"], ["three"]]
    caller = key("one")
    new = await create(caller, generate("a"), generate("b"))
    await results(caller, new.id, follow=True)
    counts = gate.ledger.counts(caller.id)
    # Two requests ran a model; creating and reading the batch ran none.
    assert counts.requests == 2
    assert counts.output_tokens == 5
    assert counts.prompt_tokens > 0


async def test_limits_by_time_do_not_refuse_a_batch(key, gate, backend):
    caller = key("one", requests_per_minute=1, concurrent_requests=1)
    new = await create(caller, *(generate(str(number)) for number in range(5)))
    assert len(await results(caller, new.id, follow=True)) == 5
    assert (await get(caller, new.id)).completed_count == 5
    assert gate.ledger.counts(caller.id).refused == 0


async def test_an_interrupted_request_costs_nothing(key, gate, backend, serving):
    backend.parts += [["lost", 60.0], ["x"]]
    caller = key("one")
    new = await create(caller, generate("g"))
    await until(lambda: backend.running)
    serving.activity.background.on_wait()
    await results(caller, new.id, follow=True)
    counts = gate.ledger.counts(caller.id)
    assert (counts.requests, counts.output_tokens) == (1, 2)


async def test_a_used_up_quota_stops_a_batch_until_it_is_renewed(key, kept, backend):
    caller = key("one", tokens_per_day=1)
    new = await create(caller, *(generate(str(number)) for number in range(12)))
    await until(lambda: kept.store.listed(caller.id)[0].progress.completed)
    await asyncio.sleep(0.1)
    found = await get(caller, new.id)
    # Those that ran at once began before the quota was used up.
    assert 1 <= found.completed_count <= 8
    assert (found.state, found.failed_count) == (batch_pb2.BATCH_STATE_RUNNING, 0)


async def test_a_revoked_key_ends_its_batches(key, keys, backend):
    backend.parts += [["slow", 60.0]]
    caller, other = key("one"), key("other")
    new = await create(caller, generate("a"))
    async with asyncio.timeout(10):
        await until(lambda: backend.running)
        keys.revoke(caller.id)
        await until(lambda: not backend.running)
    assert (await refused(get(caller, new.id)))[0] == "UNAUTHENTICATED"
    assert (await refused(get(other, new.id)))[0] == "NOT_FOUND"
