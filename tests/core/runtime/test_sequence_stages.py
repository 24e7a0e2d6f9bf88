import asyncio
from contextlib import aclosing

import pytest

from puna import events
from puna.backend import BackendError, Finish, LoadedModel, Prefill, SequenceRequest, TextDelta
from puna.runtime.admission import ConcurrencyLimiter
from puna.runtime.admitted_model import AdmittedModel

FINISH = Finish(reason="stop", prompt_tokens=7, cached_prompt_tokens=2, output_tokens=2)
ANSWER = (Prefill(7, 7), TextDelta("a"), TextDelta("b"), FINISH)


class Scripted(LoadedModel):
    def __init__(self, answer=ANSWER, gate=None):
        self.answer, self.gate = answer, gate

    @property
    def facts(self):
        raise NotImplementedError

    async def generate(self, request, /):
        for each in self.answer:
            if isinstance(each, Exception):
                raise each
            yield each
            if self.gate is not None:
                await self.gate.wait()


@pytest.fixture
def stages():
    heard = []
    stop = events.subscribe(events.StageEnded, heard.append)
    yield heard
    stop()


def seen(stages):
    assert all(each.start_ns <= each.end_ns for each in stages)
    return [(each.stage, each.error) for each in stages]


async def drawn(model):
    return [each async for each in model.generate(SequenceRequest(prompt="p"))]


async def test_a_sequence_with_a_slot_has_a_prefill_and_a_decode(stages):
    assert await drawn(AdmittedModel(Scripted(), ConcurrencyLimiter(1), lambda _: None)) == list(ANSWER)
    assert seen(stages) == [("prefill", ""), ("decode", "")]
    assert stages[0].end_ns == stages[1].start_ns
    assert dict(stages[0].facts) == {"prompt_tokens": 7, "cached_tokens": 2}
    assert dict(stages[1].facts) == {"output_tokens": 2}


async def test_a_reader_that_closes_at_the_finish_leaves_no_error(stages):
    model = AdmittedModel(Scripted(), ConcurrencyLimiter(1), lambda _: None)
    async with aclosing(model.generate(SequenceRequest(prompt="p"))) as answer:
        async for event in answer:
            if event is FINISH:
                break
    assert seen(stages) == [("prefill", ""), ("decode", "")]


async def test_a_wait_for_a_slot_is_a_stage_and_its_positions_are_told(stages):
    limiter, gate, positions = ConcurrencyLimiter(1), asyncio.Event(), asyncio.Queue()
    first = asyncio.create_task(drawn(AdmittedModel(Scripted(gate=gate), limiter, lambda _: None)))
    await asyncio.sleep(0)
    second = asyncio.create_task(drawn(AdmittedModel(Scripted(), limiter, positions.put_nowait)))
    assert await positions.get() == 1
    gate.set()
    await asyncio.gather(first, second)
    assert await positions.get() == 0
    assert seen(stages) == [("prefill", ""), ("decode", ""), ("queue", ""), ("prefill", ""), ("decode", "")]
    assert stages[2].end_ns <= stages[3].start_ns


async def test_a_request_that_is_cancelled_while_it_waits_has_no_other_stage(stages):
    limiter, gate, positions = ConcurrencyLimiter(1), asyncio.Event(), asyncio.Queue()
    first = asyncio.create_task(drawn(AdmittedModel(Scripted(gate=gate), limiter, lambda _: None)))
    await asyncio.sleep(0)
    second = asyncio.create_task(drawn(AdmittedModel(Scripted(), limiter, positions.put_nowait)))
    assert await positions.get() == 1
    second.cancel()
    await asyncio.wait({second})
    assert seen(stages) == [("queue", "CANCELLED")]
    gate.set()
    await first


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ((Prefill(1, 7), BackendError("no")), [("prefill", "BackendError")]),
        ((TextDelta("a"), BackendError("no")), [("prefill", ""), ("decode", "BackendError")]),
    ],
)
async def test_a_failure_belongs_to_the_stage_in_which_it_happened(stages, answer, found):
    with pytest.raises(BackendError):
        await drawn(AdmittedModel(Scripted(answer), ConcurrencyLimiter(1), lambda _: None))
    assert seen(stages) == found


async def test_a_sequence_that_generates_nothing_has_a_prefill_alone(stages):
    await drawn(AdmittedModel(Scripted((Prefill(7, 7), FINISH)), ConcurrencyLimiter(1), lambda _: None))
    assert seen(stages) == [("prefill", "")]
