"""DiagnosticsService: past requests, log lines and server events."""

import asyncio
import json
import logging

import grpc
import pytest
from tests.core.rpc.conftest import Stubs
from tests.core.serving.asking import until

from puna import events
from puna.auth.gate import REACHABLE, Gate
from puna.auth.keys import KeyFile
from puna.backend import BackendError
from puna.diagnostics.content import Policy
from puna.diagnostics.diagnostics import Diagnostics
from puna.diagnostics.redaction import Redaction
from puna.rpc import tail_messages
from puna.rpc.server import serving as running
from puna_client.v1 import (
    chat_pb2,
    diagnostics_pb2,
    embed_pb2,
    generate_pb2,
    message_pb2,
    models_pb2,
    options_pb2,
    server_pb2,
    usage_pb2,
)

log = logging.getLogger("puna.some")
OUTCOME = diagnostics_pb2.RequestOutcome
KINDS = (events.SequenceBegan, events.AnswerEnded, events.StageEnded, events.CallRefused, events.ModelLeased)


@pytest.fixture
def policy():
    return Policy()


@pytest.fixture
def keys(tmp_path):
    return KeyFile(tmp_path / "keys.json")


@pytest.fixture
def gate(keys):
    return Gate(keys)


@pytest.fixture
async def address(serving, batches, policy, gate):
    diagnostics = Diagnostics(policy, serving.settings.limits)
    async with (
        diagnostics.keeping(serving.activity.entries),
        running(serving, "127.0.0.1:0", batches=batches, gate=gate, diagnostics=diagnostics) as bound,
    ):
        yield bound


def as_key(keys, name, *allow, **limits):
    """Return the metadata of a caller with a new key."""
    _, text = keys.create(name=name, allow=allow or ("inference",), **limits)
    return (("authorization", f"Bearer {text}"),)


async def listed(stubs, metadata=(), **fields):
    request = diagnostics_pb2.ListRequestRecordsRequest(**fields)
    return (await stubs.diagnostics.ListRequestRecords(request, metadata=metadata)).records


async def got(stubs, metadata=(), **name):
    request = diagnostics_pb2.GetRequestRecordRequest(**name)
    return (await stubs.diagnostics.GetRequestRecord(request, metadata=metadata)).record


async def eventually(ask):
    """Ask until the answer is true; return it."""
    for _ in range(6000):
        if answer := await ask():
            return answer
        await asyncio.sleep(0.01)
    raise TimeoutError


async def refused(call):
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return failed.value.code()


def asked(model="talker", text="a", **options):
    return chat_pb2.ChatRequest(
        model=model,
        messages=[message_pb2.ChatMessage(role="user", content=text)],
        options=options_pb2.RequestOptions(**options),
    )


async def test_a_past_request_is_shown_with_its_prompt_and_its_answer(stubs, backend):
    backend.play("Hel", "lo")
    await stubs.chat.Chat(asked(text="é?", options_json='{"temperature": 0.5, "stop": ["X"]}'))
    (short,) = await listed(stubs)
    assert not short.HasField("content")
    record = await got(stubs, number=short.number)
    assert (record.model, record.method, record.outcome) == ("talker", "Chat", OUTCOME.REQUEST_OUTCOME_SUCCEEDED)
    assert record.finish_reason == usage_pb2.FINISH_REASON_STOP
    assert record.end_time.ToNanoseconds() >= record.start_time.ToNanoseconds() > 0
    assert (record.usage.prompt_tokens, record.usage.output_tokens) == (9, 3)
    times = record.timings
    assert times.total.ToNanoseconds() >= times.time_to_first_token.ToNanoseconds() > 0
    assert times.HasField("load")
    assert not times.HasField("queue")
    assert times.HasField("render")
    assert json.loads(record.content.options_json) == {"temperature": 0.5, "stop": ["X"]}
    assert [each.prompt for each in record.content.sequences] == ["[user]é?"]
    assert [each.text for each in record.content.answers] == ["Hello"]
    assert not record.content.truncated
    short.content.CopyFrom(record.content)
    assert record == short


async def test_thinking_and_tool_calls_are_shown(stubs, backend):
    backend.play('<tool_call>{"name": "get", "arguments": {"x": 1}}</tool_call>')
    tool = message_pb2.Tool(type="function", name="get", parameters_json='{"type":"object"}')
    request = asked("tools")
    request.tools.append(tool)
    await stubs.chat.Chat(request)
    backend.play("<think>hm</think>yes")
    await stubs.chat.Chat(asked("thinker", thinking=options_pb2.THINKING_LEVEL_ON))
    thought, called = [await got(stubs, number=each.number) for each in await listed(stubs)]
    assert (called.tool_call_count, called.finish_reason) == (1, usage_pb2.FINISH_REASON_TOOL_CALLS)
    (call,) = called.content.answers[0].tool_calls
    assert (call.name, json.loads(call.arguments_json)) == ("get", {"x": 1})
    assert [(each.thinking, each.text) for each in thought.content.answers] == [("hm", "yes")]


async def test_a_running_request_is_shown_as_far_as_it_has_come(stubs, backend):
    backend.play("Hel", 60.0, "lo")
    call = stubs.chat.StreamChat(asked(text="private"))
    assert await call.read()

    async def answer():
        (record,) = await listed(stubs)
        return (await got(stubs, number=record.number)).content.answers

    await eventually(answer)
    (record,) = await listed(stubs, outcome=OUTCOME.REQUEST_OUTCOME_RUNNING)
    record = await got(stubs, request_id=record.request_id)
    assert (record.phase, record.outcome) == (server_pb2.REQUEST_PHASE_DECODE, OUTCOME.REQUEST_OUTCOME_RUNNING)
    assert not record.HasField("end_time")
    assert record.usage.output_tokens == 1
    assert record.timings.total.ToNanoseconds() >= record.timings.time_to_first_token.ToNanoseconds() > 0
    assert [each.text for each in record.content.answers] == ["Hel"]
    await stubs.server.CancelRequests(server_pb2.CancelRequestsRequest(ids=[record.request_id]))
    await until(lambda: not backend.running)

    async def end():
        found = await got(stubs, number=record.number)
        return found if found.HasField("end_time") else None

    record = await eventually(end)
    assert (record.outcome, record.error_reason) == (OUTCOME.REQUEST_OUTCOME_CANCELLED, "CANCELLED")
    assert [each.text for each in record.content.answers] == ["Hel"]
    assert record.timings.HasField("prefill")
    call.cancel()


async def test_a_failed_request_is_shown_with_its_error(stubs, backend):
    backend.play("a", BackendError("no more paper"))
    await refused(stubs.chat.Chat(asked()))
    await refused(stubs.chat.Chat(asked("nosuch")))
    unknown, broken = [await got(stubs, number=each.number) for each in await listed(stubs)]
    assert (broken.outcome, broken.error_reason) == (OUTCOME.REQUEST_OUTCOME_FAILED, "BACKEND_FAILED")
    assert broken.content.error_message == "no more paper"
    assert [each.text for each in broken.content.answers] == ["a"]
    assert broken.phase == server_pb2.REQUEST_PHASE_DECODE
    assert broken.finish_reason == usage_pb2.FINISH_REASON_UNSPECIFIED
    assert (unknown.error_reason, unknown.content.error_message) == ("MODEL_NOT_FOUND", "model 'nosuch' not found")
    assert list(unknown.content.inputs) == ["user: a"]
    assert not broken.content.inputs
    assert [each.model for each in await listed(stubs, model="nosuch:latest")] == ["nosuch"]


async def test_a_request_that_waits_for_its_model_is_shown_as_it_was_sent(stubs, backend):
    backend.load_seconds = 60.0
    call = stubs.chat.StreamChat(asked(text="hello"))

    async def read():
        found = await listed(stubs)
        return found and (await got(stubs, number=found[0].number)).content.inputs

    assert list(await eventually(read)) == ["user: hello"]
    call.cancel()


async def test_the_place_in_the_queue_is_shown(stubs, backend):
    backend.facts["parallel"] = 1
    backend.play("Hel", 60.0)
    calls = [stubs.chat.StreamChat(asked())]
    await until(lambda: backend.running)
    calls += [stubs.chat.StreamChat(asked(text=text)) for text in ("b", "c")]

    async def waiting():
        return sorted(each.queue_position for each in await listed(stubs)) == [0, 1, 2]

    async def over():
        return len(await listed(stubs, outcome=OUTCOME.REQUEST_OUTCOME_RUNNING)) == 1

    await eventually(waiting)
    last = next(each for each in await listed(stubs) if each.queue_position == 2)
    assert last.phase == server_pb2.REQUEST_PHASE_QUEUED
    assert last.arrival_queue_position == 2
    # The prompt is rendered before the request waits for a slot.
    assert (await got(stubs, number=last.number)).content.sequences[0].prompt.startswith("[user]")
    # If the running call went first, a waiting one would get its slot and could end well.
    for call in calls[1:]:
        call.cancel()
    await eventually(over)
    calls[0].cancel()
    last = await got(stubs, number=last.number)
    assert (last.outcome, last.arrival_queue_position, last.queue_position) == (
        OUTCOME.REQUEST_OUTCOME_CANCELLED,
        2,
        0,
    )
    assert last.timings.HasField("queue")


async def test_images_and_texts_to_embed_are_shown(stubs, backend):
    backend.facts |= {"vision": True, "embedding_length": 3}
    backend.play("cat")
    await stubs.generate.Generate(
        generate_pb2.GenerateRequest(model="plain", text="a", media=[options_pb2.Media(data=b"abc")])
    )
    await stubs.embed.Embed(embed_pb2.EmbedRequest(model="embedder", inputs=["x", "y"]))
    embedded, seen = [each.number for each in await listed(stubs)]
    assert list((await got(stubs, number=embedded)).content.inputs) == ["x", "y"]
    assert (await got(stubs, number=embedded)).vector_count == 2

    async def hashed():
        (media,) = (await got(stubs, number=seen)).content.media
        return media if media.digest else None

    media = await eventually(hashed)
    assert media.size_bytes == 3
    assert media.digest == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


async def test_several_answers_are_shown(stubs, backend):
    backend.play("a")
    backend.play("b")
    await stubs.generate.Generate(generate_pb2.GenerateRequest(model="plain", text="q", n=2))
    record = await got(stubs, number=1)
    assert [each.choice for each in record.content.sequences] == [0, 1]
    assert sorted(each.text for each in record.content.answers) == ["a", "b"]


async def test_pages_go_from_new_to_old(stubs, backend):
    for text in "abc":
        backend.play(text)
        await stubs.chat.Chat(asked())
    first = diagnostics_pb2.ListRequestRecordsRequest(page_size=2)
    page = await stubs.diagnostics.ListRequestRecords(first)
    assert [each.number for each in page.records] == [3, 2]
    first.page_token = page.next_page_token
    page = await stubs.diagnostics.ListRequestRecords(first)
    assert ([each.number for each in page.records], page.next_page_token) == ([1], "")


async def test_a_record_needs_a_name_that_exists(stubs):
    assert await refused(got(stubs)) is grpc.StatusCode.INVALID_ARGUMENT
    assert await refused(got(stubs, number=7)) is grpc.StatusCode.NOT_FOUND
    assert await refused(got(stubs, request_id="r0")) is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("policy", [Policy(prompts=False, answers=False)])
async def test_texts_that_the_settings_leave_out_are_not_kept(stubs, backend, policy):
    backend.facts["embedding_length"] = 3
    backend.play("secret", BackendError("secret too"))
    await refused(stubs.chat.Chat(asked(text="my secret", options_json='{"stop": ["secret"]}')))
    await stubs.embed.Embed(embed_pb2.EmbedRequest(model="embedder", inputs=["secret"]))
    embedded, record = [await got(stubs, number=each.number) for each in await listed(stubs)]
    assert record.content.prompt_omitted
    assert record.content.answer_omitted
    assert json.loads(record.content.options_json) == {"stop": None}
    assert len(record.content.sequences) == 1
    assert record.error_reason == "BACKEND_FAILED"
    assert "secret" not in f"{record}{embedded}"


@pytest.mark.parametrize("policy", [Policy(redaction=Redaction([r"sk-\w+", "pa+ss"]))])
async def test_passages_that_match_a_pattern_are_not_kept(stubs, backend, policy):
    backend.play("use sk-", "12ab now")
    await stubs.chat.Chat(asked(text="paass sk-1 pass", options_json='{"stop": ["sk-9"]}'))
    await stubs.generate.Generate(generate_pb2.GenerateRequest(model="plain", token_ids={"ids": [80, 90]}, raw=True))
    tokens, record = [(await got(stubs, number=each.number)).content for each in await listed(stubs)]
    assert record.sequences[0].prompt == "[user][redacted] [redacted] [redacted]"
    assert record.answers[0].text == "use [redacted] now"
    assert json.loads(record.options_json) == {"stop": ["[redacted]"]}
    assert record.redacted_count == 5
    # Patterns cannot be applied to ids.
    assert not tokens.sequences[0].prompt_token_ids
    assert tokens.redacted_count == 1


async def test_a_key_sees_its_own_records(stubs, backend, keys):
    shop, other = as_key(keys, "shop", "inference", "requests"), as_key(keys, "other", "inference", "requests")
    chief, poor = as_key(keys, "chief", "diagnostics"), as_key(keys, "poor", "inference")
    backend.play("a")
    await stubs.chat.Chat(asked(), metadata=shop)
    assert [each.key_name for each in await listed(stubs, shop)] == ["shop"]
    assert [each.key_name for each in await listed(stubs, chief)] == ["shop"]
    assert not await listed(stubs, other)
    assert not await listed(stubs, chief, key_name="other")
    assert (await got(stubs, chief, number=1)).content.answers[0].text == "a"
    assert await refused(got(stubs, other, number=1)) is grpc.StatusCode.NOT_FOUND
    assert await refused(listed(stubs, poor)) is grpc.StatusCode.PERMISSION_DENIED
    assert await refused(listed(stubs)) is grpc.StatusCode.UNAUTHENTICATED


async def test_calls_that_a_key_may_not_make_have_records_and_push_no_others_out(serving, backend, keys):
    chief, busy = as_key(keys, "chief", "all"), as_key(keys, "busy", requests_per_minute=1)
    limits = serving.settings.limits
    object.__setattr__(limits, "max_records", 8)
    diagnostics = Diagnostics(Policy(), limits)
    try:
        async with (
            diagnostics.keeping(serving.activity.entries),
            running(serving, "127.0.0.1:0", gate=Gate(keys), diagnostics=diagnostics) as address,
            grpc.aio.insecure_channel(address) as channel,
        ):
            stubs = Stubs(channel)
            backend.play("a")
            await stubs.chat.Chat(asked(), metadata=busy)
            for _ in range(20):
                assert await refused(stubs.chat.Chat(asked(), metadata=busy)) is grpc.StatusCode.RESOURCE_EXHAUSTED
            # Neither the unknown nor the curious have records.
            await refused(stubs.chat.Chat(asked()))
            await refused(listed(stubs, busy))
            found = await listed(stubs, chief)
    finally:
        object.__setattr__(limits, "max_records", 200)
    assert [each.outcome for each in found].count(OUTCOME.REQUEST_OUTCOME_REFUSED) == 7
    assert found[-1].outcome == OUTCOME.REQUEST_OUTCOME_SUCCEEDED
    assert (found[0].error_reason, found[0].method, found[0].key_name) == ("RATE_LIMITED", "Chat", "busy")


async def test_a_server_that_others_reach_without_keys_shows_nothing(stubs, gate, keys):
    reached = ((REACHABLE, "1"),)
    assert not await listed(stubs)
    assert await refused(listed(stubs, reached)) is grpc.StatusCode.PERMISSION_DENIED
    gate.reachable = True
    calls = (
        listed(stubs),
        got(stubs, number=1),
        stubs.diagnostics.StreamLogs(diagnostics_pb2.StreamLogsRequest()).read(),
        stubs.diagnostics.StreamServerEvents(diagnostics_pb2.StreamServerEventsRequest()).read(),
    )
    assert [await refused(call) for call in calls] == [grpc.StatusCode.PERMISSION_DENIED] * 4
    assert not await listed(stubs, as_key(keys, "chief", "diagnostics"))


@pytest.mark.parametrize("policy", [None])
async def test_a_server_that_keeps_no_requests_says_so_and_listens_to_nothing(stubs, backend, policy):
    backend.play("a")
    await stubs.chat.Chat(asked())
    assert not any(map(events.wanted, KINDS))
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await listed(stubs)
    assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "PUNA_RECORDS=1" in failed.value.details()


def log_lines(stubs, metadata=(), **fields):
    return stubs.diagnostics.StreamLogs(diagnostics_pb2.StreamLogsRequest(**fields), metadata=metadata)


async def texts(call):
    return [line.message async for answer in call for line in answer.lines if line.logger == "puna.some"]


async def test_the_log_is_shown_from_its_tail_on(stubs, caplog):
    caplog.set_level(logging.DEBUG)
    for number in range(450):
        log.info("line %d", number)
    log.debug("for developers")
    log.error("broken", extra={"facts": {"tokens": 1}})
    everything = await texts(log_lines(stubs))
    assert everything == [f"line {number}" for number in range(450)] + ["broken"]
    levels = diagnostics_pb2.LogLevel
    assert await texts(log_lines(stubs, min_level=levels.LOG_LEVEL_WARNING)) == ["broken"]
    assert "for developers" in await texts(log_lines(stubs, min_level=levels.LOG_LEVEL_DEBUG))
    found = [line async for answer in log_lines(stubs, tail_lines=1) for line in answer.lines]
    assert [(line.message, line.level, line.facts_json) for line in found] == [
        ("broken", levels.LOG_LEVEL_ERROR, '{"tokens": 1}')
    ]
    assert await refused(log_lines(stubs, tail_lines=-1).read()) is grpc.StatusCode.INVALID_ARGUMENT


async def test_new_lines_follow_and_those_of_a_request_are_found(stubs, backend, caplog):
    caplog.set_level(logging.DEBUG)
    debug = diagnostics_pb2.LogLevel.LOG_LEVEL_DEBUG
    call = log_lines(stubs, follow=True, tail_lines=0, request_id="mine", min_level=debug)
    # The first message says that the stream has begun.
    assert not (await call.read()).lines
    backend.play("secret answer")
    await stubs.chat.Chat(asked(text="secret"), metadata=(("x-request-id", "other"),))
    backend.play("secret answer")
    await stubs.chat.Chat(asked(text="secret"), metadata=(("x-request-id", "mine"),))
    lines = []
    while not any("Chat 'talker' ends" in line.message for line in lines):
        lines += (await call.read()).lines
    call.cancel()
    assert {line.request_id for line in lines} == {"mine"}
    assert not any("secret" in str(line) for line in lines)


async def test_a_follower_ends_with_the_server(stubs, serving):
    calls = [
        log_lines(stubs, follow=True),
        stubs.diagnostics.StreamServerEvents(diagnostics_pb2.StreamServerEventsRequest(follow=True)),
    ]
    for each in calls:
        await each.read()
    serving.activity.refuse()
    for each in calls:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            while await each.read():
                pass
        assert failed.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_the_log_needs_a_permission_and_events_need_another(stubs, keys):
    reader, mine = as_key(keys, "reader", "read"), as_key(keys, "mine", "inference", "requests")
    chief = as_key(keys, "chief", "diagnostics")
    request = diagnostics_pb2.StreamServerEventsRequest()
    assert await refused(log_lines(stubs, reader).read()) is grpc.StatusCode.PERMISSION_DENIED
    assert await refused(log_lines(stubs, mine).read()) is grpc.StatusCode.PERMISSION_DENIED
    denied = stubs.diagnostics.StreamServerEvents(request, metadata=mine)
    assert await refused(denied.read()) is grpc.StatusCode.PERMISSION_DENIED
    assert await log_lines(stubs, chief).read()
    assert await stubs.diagnostics.StreamServerEvents(request, metadata=reader).read()


async def test_what_happens_to_models_is_shown(stubs, backend):
    call = stubs.diagnostics.StreamServerEvents(diagnostics_pb2.StreamServerEventsRequest(follow=True))
    assert not (await call.read()).events
    await stubs.models.LoadModel(models_pb2.LoadModelRequest(name="plain"))
    await stubs.models.UnloadModel(models_pb2.UnloadModelRequest(name="plain"))
    events.publish(events.HostDied(model="m", status="SIGKILL"))
    events.publish(events.ModelLoadFailed(model="m", backend="b", reason="LOAD_FAILED", error="bad\ud800"))
    events.publish(events.ModelRemoved(model="m", cause="evicted", evicted_for="n"))
    events.publish(events.NodeLost(node="gpu1:7", hosts=2, error="it does not answer"))
    found = []
    while len(found) < 6:
        found += (await call.read()).events
    call.cancel()
    loaded, removed, died, failed, evicted, lost = found
    assert (loaded.model_loaded.model, loaded.model_loaded.backend) == ("plain:latest", "played")
    assert loaded.model_loaded.load.ToNanoseconds() > 0
    causes = diagnostics_pb2.ModelRemovalCause
    assert removed.model_removed.cause == causes.MODEL_REMOVAL_CAUSE_UNLOADED
    assert died.host_died.status == "SIGKILL"
    assert failed.model_load_failed.error_message == "bad\N{REPLACEMENT CHARACTER}"
    assert (evicted.model_removed.cause, evicted.model_removed.evicted_for_model) == (
        causes.MODEL_REMOVAL_CAUSE_EVICTED,
        "n",
    )
    assert (lost.node_lost.node, lost.node_lost.hosts, lost.node_lost.error_message) == (
        "gpu1:7",
        2,
        "it does not answer",
    )
    assert [each.number for each in found] == [1, 2, 3, 4, 5, 6]
    again = stubs.diagnostics.StreamServerEvents(diagnostics_pb2.StreamServerEventsRequest())
    assert [each async for answer in again for each in answer.events] == found


async def test_every_cause_of_a_removal_has_a_name():
    assert set(tail_messages._CAUSES.values()) == set(diagnostics_pb2.ModelRemovalCause.values()) - {0}
