import asyncio
from contextlib import aclosing

import pytest

from puna.backend import Embedding, ModelSpec, SequenceRequest
from puna.backend.v1 import backend_pb2 as wire
from puna.host.convert import embedding_from_wire, sequence_to_wire
from puna.host.models import Models
from puna.host.sequences import Sequences


@pytest.fixture
def models(registry, journal):
    import puna_scripted

    models = Models()
    models.add("", puna_scripted.Scripted(ModelSpec(path="", backend_options={"journal": str(journal.path)})))
    return models


def start(sequence_id, prompt, model_id=""):
    request = wire.RunRequest(sequence_id=sequence_id, start=sequence_to_wire(SequenceRequest(prompt=prompt)))
    request.start.model_id = model_id
    return request


def embed(sequence_id, text, model_id=""):
    given = wire.StartEmbedding(input=wire.EmbedInput(text=text), model_id=model_id, raw=True)
    return wire.RunRequest(sequence_id=sequence_id, embed=given)


def cancel(sequence_id):
    return wire.RunRequest(sequence_id=sequence_id, cancel=True)


class Core:
    """The core's end of the stream."""

    def __init__(self, *requests):
        self.queue = asyncio.Queue()
        for request in requests:
            self.say(request)

    def say(self, request):
        self.queue.put_nowait(request)

    async def __aiter__(self):
        while (request := await self.queue.get()) is not None:
            yield request


def texts(response):
    return [(event.sequence_id, event.text_delta.text or event.WhichOneof("event")) for event in response.events]


async def test_what_becomes_ready_together_travels_together(models):
    core = Core(start(1, "a @wait 0.05 b"), start(2, "c @wait 0.05 d"), None)
    responses = [texts(response) async for response in Sequences(models).responses(core)]
    assert responses[0] == [(1, "a"), (2, "c")]
    assert sorted(event for response in responses[1:] for event in response) == [
        (1, "b"),
        (1, "finish"),
        (2, "d"),
        (2, "finish"),
    ]
    assert len(responses) <= 4


async def test_the_stream_ends_when_the_core_and_every_sequence_have(models):
    core = Core(start(1, "a @wait 0.02 b"), None)
    events = [event async for response in Sequences(models).responses(core) for event in texts(response)]
    assert events == [(1, "a"), (1, "b"), (1, "finish")]


async def test_nothing_comes_after_a_cancel(models, journal):
    core = Core(start(1, "@endless"), start(2, "b @wait 0.05 c"))
    seen = []
    async with aclosing(Sequences(models).responses(core)) as responses:
        async for response in responses:
            seen += texts(response)
            if len(seen) >= 5 and "cancelled" not in seen:
                core.say(cancel(1))
                core.say(cancel(1))
                core.say(cancel(77))
                await journal.until("stopped")
                seen.append("cancelled")
                core.say(None)
    after = seen[seen.index("cancelled") + 1 :]
    assert [event for event in after if event[0] == 1] == []
    assert after[-1] == (2, "finish")


async def test_a_generator_that_never_waits_keeps_nobody_out(models):
    core = Core(start(1, "@endless"), start(2, "b"))
    async with asyncio.timeout(5), aclosing(Sequences(models).responses(core)) as responses:
        async for response in responses:
            if (2, "finish") in texts(response):
                break


@pytest.mark.parametrize("prompt", ["@endless", "@wait 60", "@prefill 100 1"])
async def test_the_end_of_the_stream_closes_every_generator(models, journal, prompt):
    core = Core(start(1, prompt), start(2, "a"))
    async with aclosing(Sequences(models).responses(core)) as responses:
        async for response in responses:
            if (2, "finish") in texts(response):
                break
    assert journal.lines().count("end") == 2


async def test_an_error_ends_its_sequence_alone(models):
    core = Core(start(1, "a @raise"), start(2, "b @unended"), start(3, "@long"), start(4, "c @wait 0.05 d"), None)
    events = [event async for response in Sequences(models).responses(core) for event in response.events]
    failures = {event.sequence_id: event.failure for event in events if event.HasField("failure")}
    assert failures[1].message == "oh dear"
    assert "without a Finish" in failures[2].message
    assert (failures[3].prompt_tokens, failures[3].context_length) == (9, 4)
    assert events[-1].sequence_id == 4
    assert events[-1].HasField("finish")


async def test_a_sequence_of_a_model_that_is_not_loaded_fails_alone(models):
    core = Core(start(1, "a", model_id="7"), start(2, "b"), None)
    events = [event async for response in Sequences(models).responses(core) for event in response.events]
    (failure,) = (event.failure for event in events if event.HasField("failure"))
    assert failure.message == "no model is loaded"
    assert [event.text_delta.text for event in events if event.HasField("text_delta")] == ["b"]


async def test_a_text_is_embedded_beside_sequences(models):
    core = Core(start(1, "a @wait 0.05 b"), embed(2, "né"), embed(3, "@raise"), embed(4, "a", model_id="7"), None)
    events = [event async for response in Sequences(models).responses(core) for event in response.events]
    of_texts = {event.sequence_id: event for event in events if event.sequence_id > 1}
    assert len([event for event in events if event.sequence_id > 1]) == 3
    vector = embedding_from_wire(of_texts[2].embedding)
    assert (list(vector.values), vector.token_count) == ([2.0, 0.5, 1.0], 2)
    assert of_texts[3].failure.message == 5000 * "é"
    assert of_texts[4].failure.message == "no model is loaded"
    assert events[-1].HasField("finish")


async def test_a_cancelled_text_has_no_vector(models, monkeypatch):
    begun, ended = asyncio.Event(), []

    async def slow(*_, **__):
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    monkeypatch.setattr(dict(models.items())[""], "embed", slow, raising=False)
    core = Core(embed(1, "a"))
    responses = Sequences(models).responses(core)
    reading = asyncio.create_task(anext(responses))
    async with asyncio.timeout(5):
        await begun.wait()
        for request in (cancel(1), start(2, "b"), None):
            core.say(request)
        first = await reading
        events = [*first.events, *[event async for response in responses for event in response.events]]
    assert {event.sequence_id for event in events} == {2}
    assert ended


@pytest.mark.parametrize("vectors", [[], [Embedding([1.0], 1)] * 2, [None]])
async def test_a_text_has_one_vector(models, monkeypatch, vectors):
    async def wrong(*_, **__):
        return vectors

    monkeypatch.setattr(dict(models.items())[""], "embed", wrong, raising=False)
    core = Core(embed(1, "a"), None)
    (event,) = [event async for response in Sequences(models).responses(core) for event in response.events]
    assert event.failure.kind == wire.Failure.KIND_UNSPECIFIED
    assert event.failure.message.startswith("embed ")
