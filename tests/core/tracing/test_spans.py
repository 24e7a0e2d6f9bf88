"""The spans of calls to a whole core, whose backend plays what the test says."""

import asyncio
import json
from itertools import pairwise

import grpc
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from tests.core.batch.conftest import until
from tests.core.rpc.test_batch import chat as chat_item
from tests.core.rpc.test_batch import create, embed

from puna import events
from puna.backend import BackendError
from puna.backend.metadata import request_metadata
from puna.limits import Limits
from puna.tracing.spans import Spans
from puna_client.v1 import (
    chat_pb2,
    embed_pb2,
    generate_pb2,
    message_pb2,
    models_pb2,
    options_pb2,
    rank_pb2,
    server_pb2,
    tokenize_pb2,
)

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = (("traceparent", f"00-{TRACE}-{SPAN}-01"), ("tracestate", "a=1,b=2"))
SECRET = "the secret of the prompt"


def chat(model="talker", text="hello", **fields):
    return chat_pb2.ChatRequest(model=model, messages=[message_pb2.ChatMessage(role="user", content=text)], **fields)


def sampling(**values):
    return options_pb2.RequestOptions(sampling=options_pb2.SamplingOptions(**values))


def span_of(traceparent):
    """Return the trace, the span and whether the trace is sampled."""
    _, trace, span, flags = traceparent.split("-")
    return trace, span, bool(int(flags, 16) & 1)


def names(spans):
    return [each.name for each in spans]


async def test_a_request_is_a_span_with_its_stages_below_it(stubs, backend, recorded):
    backend.parts.append(["a", "b"])
    options = sampling(temperature=0.25, seed=7, max_output_tokens=9)
    await stubs.chat.Chat(chat(options=options), metadata=(*SAMPLED, ("x-request-id", "mine")))
    (span,) = recorded.requests
    assert (span.name, span.kind) == ("chat talker", SpanKind.SERVER)
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == SPAN
    assert span.context.trace_state.to_header() == "a=1,b=2"
    found = dict(span.attributes)
    assert found.pop("gen_ai.usage.input_tokens") > 0
    assert 0 < found.pop("gen_ai.server.time_to_first_token") < 60
    assert found == {
        "rpc.system": "grpc",
        "rpc.service": "puna.v1.ChatService",
        "rpc.method": "Chat",
        "puna.request.id": "mine",
        "puna.backend": "played",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "puna",
        "gen_ai.request.model": "talker",
        "gen_ai.request.temperature": 0.25,
        "gen_ai.request.seed": 7,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.output.type": "text",
        "gen_ai.response.id": "mine",
        "gen_ai.response.model": "talker:latest",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.output_tokens": 3,
    }
    assert span.status.status_code is StatusCode.UNSET
    stages = recorded.children(span)
    assert names(stages) == ["load", "render", "prefill", "decode"]
    assert all(one.end_time <= other.start_time for one, other in pairwise(stages))
    assert span.start_time <= stages[0].start_time
    assert stages[-1].end_time <= span.end_time
    assert stages[3].attributes["puna.output_tokens"] == 3


async def test_hosts_get_the_span_of_the_request_as_their_parent(stubs, backend, recorded):
    seen = []
    stop = events.subscribe(events.StageEnded, lambda _: seen.append(dict(request_metadata())))
    await stubs.chat.Chat(chat(), metadata=(*SAMPLED, ("x-request-id", "mine")))
    stop()
    (span,) = recorded.requests
    assert span_of(seen[0].pop("traceparent")) == (TRACE, f"{span.context.span_id:016x}", True)
    assert seen[0] == {"tracestate": "a=1,b=2", "x-request-id": "mine"}


@pytest.mark.parametrize(
    "given", [(), (("traceparent", "nonsense"), ("tracestate", "a=1")), (("traceparent", f"00-{'0' * 32}-{SPAN}-01"),)]
)
async def test_a_request_without_a_valid_trace_begins_one(stubs, recorded, given):
    seen = []
    stop = events.subscribe(events.StageEnded, lambda _: seen.append(dict(request_metadata())))
    await stubs.chat.Chat(chat(), metadata=given)
    await stubs.chat.Chat(chat(), metadata=given)
    stop()
    one, other = recorded.requests
    assert one.parent is None
    assert one.context.trace_id != other.context.trace_id
    assert span_of(seen[0]["traceparent"]) == (f"{one.context.trace_id:032x}", f"{one.context.span_id:016x}", True)
    assert "tracestate" not in seen[0]


async def test_a_trace_that_is_not_sampled_stays_so(stubs, recorded):
    seen = []
    stop = events.subscribe(events.RequestEnded, seen.append)
    await stubs.chat.Chat(chat(), metadata=(("traceparent", f"00-{TRACE}-{SPAN}-00"),))
    stop()
    assert recorded.all == ()
    trace, span, sampled = span_of(seen[0].traceparent)
    assert (trace, sampled) == (TRACE, False)
    assert span != SPAN


async def test_a_request_that_the_sampler_leaves_out_makes_no_spans(stubs, limits):
    spans = Spans(TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False).get_tracer("test"), limits)
    seen = []
    stop = events.subscribe(events.RequestEnded, seen.append)
    await stubs.chat.Chat(chat())
    stop()
    spans.close()
    assert not span_of(seen[0].traceparent)[2]


async def test_each_of_several_answers_has_its_stages(stubs, backend, recorded):
    backend.parts += [["a"], ["b", "c"]]
    await stubs.chat.Chat(chat(n=2))
    (span,) = recorded.requests
    assert span.attributes["gen_ai.request.choice.count"] == 2
    assert span.attributes["gen_ai.response.finish_reasons"] == ("stop", "stop")
    found = {(each.name, each.attributes["puna.choice"]) for each in recorded.children(span)[2:]}
    assert found == {(stage, choice) for stage in ("prefill", "decode") for choice in (0, 1)}


async def test_embeddings_ranking_scores_and_tokens_are_operations(stubs, backend, recorded):
    backend.facts["embedding_length"] = 3
    backend.ranks = True
    await stubs.embed.Embed(embed_pb2.EmbedRequest(model="embedder", inputs=["a", "b"], dimensions=2))
    await stubs.rank.Rerank(rank_pb2.RerankRequest(model="embedder", query="q", documents=["a", "b", "c"]))
    await stubs.rank.Score(
        rank_pb2.ScoreRequest(
            model="plain", text="ab", continuations=[rank_pb2.Continuation(text=each) for each in "cde"]
        )
    )
    await stubs.tokenize.Tokenize(tokenize_pb2.TokenizeRequest(model="plain", text="a"))
    embedded, ranked, scored, tokenized = recorded.requests
    assert names(recorded.requests) == ["embeddings embedder", "rerank embedder", "score plain", "tokenize plain"]
    assert embedded.attributes["gen_ai.embeddings.dimension.count"] == 2
    assert embedded.attributes["puna.vectors"] == 2
    assert names(recorded.children(embedded)) == ["load", "embed"]
    assert names(recorded.children(ranked)) == ["rerank"]
    assert ranked.attributes["puna.inputs"] == 3
    assert set(names(recorded.children(scored))) == {"load", "prefill"}
    assert tokenized.attributes["rpc.service"] == "puna.v1.TokenizeService"


async def test_the_stages_of_one_request_are_bounded(stubs, backend, recorded, limits):
    backend.facts["embedding_length"] = 3

    async def texts():
        yield embed_pb2.StreamEmbedRequest(config=embed_pb2.EmbedRequest(model="embedder"))
        for number in range(9):
            yield embed_pb2.StreamEmbedRequest(item=embed_pb2.StreamEmbedRequest.Item(id=str(number), input="a"))
            await answered.get()

    answered = asyncio.Queue()
    async for each in stubs.embed.StreamEmbed(texts()):
        answered.put_nowait(each)
    (span,) = recorded.requests
    assert len(recorded.children(span)) == limits.max_trace_stages
    # One load, and a call for each text.
    assert span.attributes["puna.dropped_stages"] == 10 - limits.max_trace_stages


async def test_a_request_that_changes_the_store_is_named_by_its_method(stubs, recorded):
    with pytest.raises(grpc.aio.AioRpcError):
        await stubs.models.DeleteModel(models_pb2.DeleteModelRequest(name="nosuch"))
    (span,) = recorded.requests
    assert span.name == "puna.v1.ModelsService/DeleteModel"
    assert span.attributes["puna.model"] == "nosuch"
    assert not any(each.startswith("gen_ai") for each in span.attributes)


async def test_a_failure_has_its_reason_and_not_its_text(stubs, backend, recorded):
    backend.parts.append(["a", BackendError(SECRET)])
    with pytest.raises(grpc.aio.AioRpcError):
        await stubs.chat.Chat(chat())
    (span,) = recorded.requests
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "BACKEND_FAILED")
    assert (span.attributes["error.type"], span.attributes["puna.phase"]) == ("BACKEND_FAILED", "decode")
    decode = recorded.children(span)[-1]
    assert (decode.name, decode.status.status_code) == ("decode", StatusCode.ERROR)
    assert all(SECRET not in each.to_json() for each in recorded.all)


async def test_a_request_that_waits_and_is_cancelled_ends_in_its_queue(stubs, backend, serving, recorded):
    backend.facts["parallel"] = 1
    backend.parts.append(["a", 60])
    running = stubs.chat.StreamChat(chat())
    while not (await running.read()).deltas:
        pass
    waiting = stubs.chat.StreamChat(chat(), metadata=(("x-request-id", "waits"),))
    await until(lambda: any(each.queue_position for each in serving.activity.entries()))
    await stubs.server.CancelRequests(server_pb2.CancelRequestsRequest(ids=["waits"]))
    with pytest.raises(grpc.aio.AioRpcError):
        [each async for each in waiting]
    running.cancel()
    await until(lambda: len(recorded.requests) == 2)
    span = next(each for each in recorded.requests if each.attributes["puna.request.id"] == "waits")
    assert (span.status.status_code, span.attributes["error.type"]) == (StatusCode.ERROR, "CANCELLED")
    assert span.attributes["puna.phase"] == "queued"
    assert [(each.name, each.attributes.get("error.type")) for each in recorded.children(span)][-1] == (
        "queue",
        "CANCELLED",
    )


async def test_requests_of_a_batch_have_traces_of_their_own_and_name_it(stubs, backend, recorded):
    backend.facts["embedding_length"] = 3
    batch = await create(stubs, chat_item("a"), embed("b", "x"), metadata=SAMPLED)
    await until(lambda: len(recorded.requests) == 2)
    assert {each.attributes["puna.batch.id"] for each in recorded.requests} == {batch.id}
    assert len({each.context.trace_id for each in recorded.requests} | {int(TRACE, 16)}) == 3


async def test_no_text_is_in_a_span_unless_asked(stubs, backend, recorded):
    backend.parts += [["an answer"]] * 2
    await stubs.chat.Chat(chat(text=SECRET))
    options = sampling(stop=["END"])
    await stubs.generate.Generate(generate_pb2.GenerateRequest(model="plain", text=SECRET, options=options))
    found = "".join(each.to_json() for each in recorded.all)
    assert not any(each in found for each in (SECRET, "an answer", "END"))


@pytest.mark.parametrize("recorded", [True], indirect=True)
async def test_texts_are_in_the_span_if_asked(stubs, backend, recorded):
    backend.parts += [["an ", "answer"], ["more"]]
    await stubs.chat.Chat(chat(text=SECRET))
    [each async for each in stubs.chat.StreamChat(chat(text="again"))]
    one, other = recorded.requests
    assert json.loads(one.attributes["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": SECRET}]}
    ]
    assert json.loads(one.attributes["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "an answer"}], "finish_reason": "stop"}
    ]
    assert "more" in other.attributes["gen_ai.output.messages"]


async def test_nothing_is_listened_to_after_the_end(stubs, limits):
    spans = Spans(TracerProvider(shutdown_on_exit=False).get_tracer("test"), Limits())
    spans.close()
    kinds = (events.RequestBegan, events.RequestRead, events.ModelLeased, events.StageEnded, events.AnswerEnded)
    assert not any(map(events.wanted, kinds))
