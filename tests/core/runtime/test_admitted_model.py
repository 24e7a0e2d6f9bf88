"""Texts that go to a backend hold no lone halves of characters."""

from puna.backend import DocumentScores, LoadedModel, SequenceRequest, TextDelta
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
