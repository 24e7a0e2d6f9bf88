import asyncio

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status
from tests.core.batch.conftest import until

from puna.backend import BackendError
from puna.settings import Settings
from puna_client.v1 import batch_pb2, chat_pb2, embed_pb2, generate_pb2, message_pb2, options_pb2

DONE = batch_pb2.BATCH_STATE_DONE


def generate(custom_id, text="hi", model="plain", **fields):
    return batch_pb2.BatchItem(
        custom_id=custom_id, generate=generate_pb2.GenerateRequest(model=model, text=text), **fields
    )


def chat(custom_id, model="talker", **fields):
    messages = [message_pb2.ChatMessage(role="user", content="hello")]
    return batch_pb2.BatchItem(custom_id=custom_id, chat=chat_pb2.ChatRequest(model=model, messages=messages, **fields))


def embed(custom_id, *texts, model="embedder"):
    return batch_pb2.BatchItem(custom_id=custom_id, embed=embed_pb2.EmbedRequest(model=model, inputs=texts))


async def create(stubs, *items, config=None, metadata=()):
    parts = [batch_pb2.CreateBatchRequest(config=config)] if config else []
    parts += [batch_pb2.CreateBatchRequest(item=item) for item in items]
    return (await stubs.batch.CreateBatch(iter(parts), metadata=metadata)).batch


async def get(stubs, id_):
    return (await stubs.batch.GetBatch(batch_pb2.GetBatchRequest(id=id_))).batch


async def results(stubs, id_, **selection):
    async with asyncio.timeout(20):
        call = stubs.batch.StreamBatchResults(batch_pb2.StreamBatchResultsRequest(id=id_, **selection))
        return [each async for each in call]


async def refused(call):
    """Return reason, field and text of a failed call."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    info, field = ErrorInfo(), BadRequest()
    for detail in Status.FromString(dict(raised.value.trailing_metadata())["grpc-status-details-bin"]).details:
        detail.Unpack(info) or detail.Unpack(field)
    path = field.field_violations[0].field if field.field_violations else ""
    return info.reason, path, raised.value.details()


async def test_all_kinds_of_requests_run(stubs, backend):
    backend.facts["embedding_length"] = 3
    backend.parts.append(["one"])
    new = await create(stubs, generate("g", client_data=b"mine"), embed("e", "x", "y"))
    found = {each.custom_id: each for each in await results(stubs, new.id, follow=True)}
    assert found["g"].generate.text == "one"
    assert (found["g"].client_data, found["g"].number) == (b"mine", 1)
    assert found["g"].generate.finish.usage.output_tokens > 0
    assert len(found["e"].embed.vectors) == 2
    assert found["e"].HasField("complete_time")
    assert sorted(each.index for each in found.values()) == [1, 2]
    described = await get(stubs, new.id)
    assert (described.state, described.request_count, described.completed_count, described.failed_count) == (
        DONE,
        2,
        2,
        0,
    )
    assert described.create_time.seconds <= described.start_time.seconds <= described.end_time.seconds
    assert described.expire_time.seconds - described.create_time.seconds == 86_400
    assert described.delete_time.seconds > described.end_time.seconds


async def test_a_chat_is_answered(stubs, backend):
    backend.parts.append(["hello ", "you"])
    new = await create(stubs, chat("c"))
    (found,) = await results(stubs, new.id, follow=True)
    assert (found.chat.message.role, found.chat.message.content) == ("assistant", "hello you")


async def test_an_error_belongs_to_its_request(stubs, backend):
    backend.parts += [["fine"]]
    new = await create(stubs, generate("bad", model="nosuch"), generate("good"))
    found = {each.custom_id: each for each in await results(stubs, new.id, follow=True)}
    error = found["bad"].error
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND.value[0], "MODEL_NOT_FOUND")
    assert "nosuch" in error.message
    assert error.metadata["model"] == "nosuch"
    assert Status.FromString(error.status).code == error.code
    assert found["good"].generate.text == "fine"
    described = await get(stubs, new.id)
    assert (described.state, described.completed_count, described.failed_count) == (DONE, 1, 1)
    assert [each.custom_id for each in await results(stubs, new.id, kind=batch_pb2.BATCH_RESULT_KIND_ERRORS)] == ["bad"]
    answers = await results(stubs, new.id, kind=batch_pb2.BATCH_RESULT_KIND_ANSWERS)
    assert [each.custom_id for each in answers] == ["good"]


async def test_a_bridge_gets_whole_texts(stubs, backend):
    long = "x" * 3000
    for metadata, whole in (((), False), ((("puna-long-errors", "1"),), True)):
        backend.parts.append([BackendError(long)])
        new = await create(stubs, generate("g"), metadata=metadata)
        (found,) = await results(stubs, new.id, follow=True)
        assert (long in found.error.message) is whole


async def test_a_batch_waits_behind_a_request_and_is_interrupted_by_one(stubs, backend, serving):
    """With one slot: a request that comes later is answered first, and the batch's own once it is there."""
    serving.settings.adopt(Settings(num_parallel=1, models=serving.settings.models))
    backend.parts += [["slow", 60.0], ["quick"], ["slow again"]]
    new = await create(stubs, generate("g"))
    async with asyncio.timeout(20):
        await until(lambda: backend.running)
        answer = await stubs.generate.Generate(generate_pb2.GenerateRequest(model="plain", text="hi"))
        assert answer.text == "quick"
        assert [each.priority for each in backend.requests[:2]] == [-(1 << 31), 0]
        (found,) = await results(stubs, new.id, follow=True)
    assert found.generate.text == "slow again"
    assert [each.priority for each in backend.requests] == [-(1 << 31), 0, -(1 << 31)]


async def test_no_request_is_refused_because_of_a_batch(stubs, backend, serving):
    """With one slot and no queue, a running request of a batch would otherwise make the server full."""
    serving.settings.adopt(Settings(num_parallel=1, max_queue=0, models=serving.settings.models))
    backend.parts += [["slow", 60.0], ["quick"], ["slow again"]]
    new = await create(stubs, generate("g"))
    async with asyncio.timeout(20):
        await until(lambda: backend.running)
        answer = await stubs.generate.Generate(generate_pb2.GenerateRequest(model="plain", text="hi"))
        assert answer.text == "quick"
        await results(stubs, new.id, follow=True)


async def test_a_request_of_a_batch_keeps_no_model_and_has_no_priority(stubs, backend, serving):
    backend.parts.append(["x"])
    options = options_pb2.RequestOptions(priority=5, keep_alive=options_pb2.KeepAlive(duration={"seconds": 0}))
    item = generate("g")
    item.generate.options.CopyFrom(options)
    new = await create(stubs, item)
    await results(stubs, new.id, follow=True)
    assert backend.requests[0].priority == -(1 << 31)
    assert len(serving.loaded()) == 1


async def test_a_cancelled_batch_keeps_its_answers(stubs, backend):
    backend.parts += [["fine"]]
    new = await create(stubs, generate("a"))
    await results(stubs, new.id, follow=True)
    backend.parts += [["slow", 60.0]]
    other = await create(stubs, generate("b"))
    await until(lambda: backend.running)
    cancelled = (await stubs.batch.CancelBatch(batch_pb2.CancelBatchRequest(id=other.id))).batch
    assert cancelled.state == batch_pb2.BATCH_STATE_CANCELLED
    assert await results(stubs, other.id, follow=True) == []
    again = (await stubs.batch.CancelBatch(batch_pb2.CancelBatchRequest(id=new.id))).batch
    assert again.state == DONE
    assert len(await results(stubs, new.id)) == 1
    async with asyncio.timeout(10):
        await until(lambda: not backend.running)


async def test_results_and_batches_can_be_deleted(stubs, backend):
    backend.parts.append(["x"])
    new = await create(stubs, generate("g"))
    await results(stubs, new.id, follow=True)
    request = batch_pb2.DeleteBatchResultsRequest(id=new.id, kind=batch_pb2.BATCH_RESULT_KIND_ANSWERS)
    left = (await stubs.batch.DeleteBatchResults(request)).batch
    assert (left.completed_count, left.answer_bytes) == (1, 0)
    assert await results(stubs, new.id) == []
    await stubs.batch.DeleteBatch(batch_pb2.DeleteBatchRequest(id=new.id))
    assert (await refused(get(stubs, new.id)))[0] == "NOT_FOUND"


async def test_what_a_client_gave_comes_back(stubs):
    config = batch_pb2.BatchConfig(metadata={"job": "nightly"}, client_data=b"\0\1")
    config.completion_window.FromSeconds(60)
    new = await create(stubs, generate("g", model="nosuch"), config=config)
    assert (dict(new.metadata), new.client_data) == ({"job": "nightly"}, b"\0\1")
    assert new.expire_time.seconds - new.create_time.seconds == 60


async def test_lists_are_paged(stubs):
    ids = [(await create(stubs, generate("g", model="nosuch"))).id for _ in range(3)][::-1]
    first = await stubs.batch.ListBatches(batch_pb2.ListBatchesRequest(page_size=2))
    rest = await stubs.batch.ListBatches(batch_pb2.ListBatchesRequest(page_token=first.next_page_token))
    behind = await stubs.batch.ListBatches(batch_pb2.ListBatchesRequest(after_id=ids[0]))
    assert [each.id for each in behind.batches] == ids[1:]
    assert [each.id for each in [*first.batches, *rest.batches]] == ids
    assert rest.next_page_token == ""
    for field in ("page_token", "after_id"):
        wrong = stubs.batch.ListBatches(batch_pb2.ListBatchesRequest(**{field: "nosuch"}))
        assert (await refused(wrong))[:2] == ("INVALID_REQUEST", field)


@pytest.mark.parametrize(
    ("items", "field", "text"),
    [
        ([], "item", "no request"),
        ([generate("")], "item.custom_id", "request 1: the custom id"),
        ([generate("x" * 513)], "item.custom_id", "request 1: the custom id"),
        ([generate("a"), generate("b"), generate("a")], "item.custom_id", "request 3: the custom id 'a'"),
        ([generate("a"), batch_pb2.BatchItem(custom_id="b")], "item.request", "request 2 ('b')"),
        ([generate("a", model="")], "item.generate.model", "request 1 ('a'): model is required"),
        ([chat("c", options=options_pb2.RequestOptions(options_json="x" * (2 << 20)))], "item.chat", "request 1 ('c')"),
    ],
)
async def test_an_invalid_item_is_named(stubs, items, field, text):
    reason, path, said = await refused(create(stubs, *items))
    assert reason == "INVALID_REQUEST"
    assert path.startswith(field)
    assert text in said
    assert (await stubs.batch.ListBatches(batch_pb2.ListBatchesRequest())).batches == []


@pytest.mark.parametrize(
    "config",
    [
        batch_pb2.BatchConfig(client_data=bytes(1 << 17)),
        batch_pb2.BatchConfig(metadata={str(number): "" for number in range(17)}),
        batch_pb2.BatchConfig(metadata={"k": "x" * 513}),
        batch_pb2.BatchConfig(completion_window={"seconds": -1}),
        batch_pb2.BatchConfig(completion_window={"seconds": 1 << 33}),
        batch_pb2.BatchConfig(request_count=2),
    ],
)
async def test_settings_have_bounds(stubs, config):
    reason, path, _ = await refused(create(stubs, generate("a"), config=config))
    assert (reason, path.partition(".")[0]) == ("INVALID_REQUEST", "config")


async def test_a_creation_that_is_cancelled_leaves_nothing(stubs, batches, tmp_path):
    async def parts():
        yield batch_pb2.CreateBatchRequest(item=generate("a"))
        await asyncio.sleep(60)

    call = stubs.batch.CreateBatch(parts())
    async with asyncio.timeout(10):
        await until(lambda: list((tmp_path / "batches").glob("batches/.*")))
        call.cancel()
        await until(lambda: not list((tmp_path / "batches").glob("batches/.*")))
    assert batches.store.listed("") == []


@pytest.mark.parametrize("id_", ["nosuch", "../lock", "\0", ""])
async def test_an_unknown_batch_is_not_found(stubs, id_):
    for call in (
        get(stubs, id_),
        stubs.batch.CancelBatch(batch_pb2.CancelBatchRequest(id=id_)),
        stubs.batch.DeleteBatch(batch_pb2.DeleteBatchRequest(id=id_)),
        stubs.batch.DeleteBatchResults(batch_pb2.DeleteBatchResultsRequest(id=id_)),
        results(stubs, id_),
    ):
        assert (await refused(call))[0] == "NOT_FOUND"
