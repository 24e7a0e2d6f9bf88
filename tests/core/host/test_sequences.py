import asyncio
from contextlib import aclosing

import pytest

from puna.backend import ModelSpec, SequenceRequest
from puna.backend.v1 import backend_pb2 as wire
from puna.host.convert import sequence_to_wire
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
