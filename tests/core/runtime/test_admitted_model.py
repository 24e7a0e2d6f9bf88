"""Texts that go to a backend hold no lone halves of characters."""

import asyncio
from types import SimpleNamespace

import pytest

from puna.backend import DocumentScores, LoadedModel, SequenceRequest, TextDelta
from puna.errors import BackendCrashedError
from puna.runtime.admission import ConcurrencyLimiter
from puna.runtime.admitted_model import AdmittedModel


class Keeping(LoadedModel):
    def __init__(self):
        self.texts = []

    @property
    def facts(self):
        raise NotImplementedError

    async def generate(self, request, /):
        self.texts += [request.prompt, *request.stop]
        yield TextDelta("a")

    async def tokenize(self, text, /, *, add_special, parse_special):
        self.texts.append(text)
        return []

    async def detokenize(self, tokens, /, *, special):
        return []

    async def embed(self, inputs, /, *, raw=False):
        self.texts += inputs
        return []

    async def rerank(self, query, documents, /):
        self.texts += [query, *documents]
        return DocumentScores([])


async def test_halves_become_whole():
    kept = Keeping()
    model = AdmittedModel(kept, ConcurrencyLimiter(1), lambda _: None)
    assert [each async for each in model.generate(SequenceRequest(prompt="é\ud800", stop=("\udfff",)))]
    await model.tokenize("\ud800", add_special=False, parse_special=False)
    await model.embed(["\ud800", (1, 2)])
    await model.rerank("\ud800", ["a\ud800"])
    assert kept.texts == ["é\ufffd", "\ufffd", "\ufffd", "\ufffd", (1, 2), "\ufffd", "a\ufffd"]


async def test_a_request_that_waited_for_the_load_alone_is_told_that_its_wait_is_over():
    positions = []
    model = AdmittedModel(Keeping(), ConcurrencyLimiter(1), positions.append, 4)
    for _ in range(2):
        assert [each async for each in model.generate(SequenceRequest(prompt="a"))]
    assert positions == [0]


class Dying(Keeping):
    async def generate(self, request, /):
        self.texts.append(request.prompt)
        raise BackendCrashedError("gone")
        yield


async def test_a_request_that_waits_outlives_any_number_of_hosts_and_one_that_runs_outlives_one():
    """Hosts die while it waits, and then two more in which it runs."""
    limiters = [ConcurrencyLimiter(1) for _ in range(3)]
    loaded = [*(SimpleNamespace(model=Keeping(), limiter=each) for each in limiters)]
    loaded += [SimpleNamespace(model=Dying(), limiter=ConcurrencyLimiter(1)) for _ in range(2)]
    renewed = iter(loaded[1:])

    async def renew(_):
        return next(renewed)

    async def run():
        return [each async for each in model.generate(SequenceRequest(prompt="a"))]

    model = AdmittedModel(loaded[0].model, loaded[0].limiter, lambda _: None, 0, renew)
    request = asyncio.create_task(run())
    for each in limiters:
        async with each.slot():
            for _ in range(100):
                await asyncio.sleep(0)
            assert each.queued == 1
            each.dismiss(each.queued)
    with pytest.raises(BackendCrashedError, match="gone"):
        await request
    assert [each.model.texts for each in loaded] == [[], [], [], ["a"], ["a"]]
