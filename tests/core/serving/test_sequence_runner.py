import pytest

from puna.backend import ChatDelta, Finish, ModelFacts, SequenceRequest, TextDelta, TokenLogprob
from puna.errors import BackendCrashedError
from puna.serving.answers import LogprobWithText
from puna.serving.sequence_runner import REPEATS, run

FIRST = TokenLogprob(b"\xc3", 1, -0.1)
SECOND = TokenLogprob(b"\xa9", 2, -0.2)
WORD = TokenLogprob(b" world", 3, -0.3)


class Played:
    """A model that says one text delta."""

    def __init__(self, delta):
        self._delta = delta

    async def generate(self, _request):
        yield self._delta
        yield Finish(reason="stop", prompt_tokens=1, output_tokens=1)


@pytest.mark.parametrize(
    ("delta", "said"),
    [
        (TextDelta(" world", (WORD,)), [None]),
        (
            TextDelta("\N{LATIN SMALL LETTER E WITH ACUTE}", (FIRST, SECOND)),
            ["", "\N{LATIN SMALL LETTER E WITH ACUTE}"],
        ),
        (TextDelta(" ", (WORD,)), [" "]),
        (TextDelta("\ufffd", (FIRST,)), [None]),
    ],
)
async def test_what_came_out_with_which_token(delta, said):
    events = [event async for event in run(Played(delta), SequenceRequest(prompt="p", max_tokens=3), guarded=True)]
    assert events[0].text == delta.text
    entries = events[0].logprobs
    assert [each.piece if isinstance(each, LogprobWithText) else None for each in entries] == said
    assert [each.logprob for each in entries] == [each.logprob for each in delta.logprobs]


class Stuck:
    """A model that repeats itself, which has counted the tokens of its prompt as cached."""

    facts = ModelFacts(context_length=4096)

    def __init__(self, cached):
        self._cached = cached

    async def generate(self, _request):
        yield TextDelta("x", (), self._cached)
        while True:
            yield TextDelta("x")

    async def tokenize(self, text, **_):
        return [1, *map(ord, text)]


@pytest.mark.parametrize(("counted", "cached"), [(5, 5), (0, 0), (7, 7), (9, 7), (-1, 0)])
async def test_an_answer_that_repeats_itself_has_its_cached_tokens_counted(counted, cached):
    events = [event async for event in run(Stuck(counted), SequenceRequest(prompt="prompt"), guarded=True)]
    finish = events[-1]
    assert (finish.reason, finish.prompt_tokens, finish.cached_prompt_tokens) == ("stop", 7, cached)
    assert finish.output_tokens == len(events) == REPEATS + 2


class Broken:
    """A model whose host dies in the middle of an answer."""

    def __init__(self, *deltas):
        self._deltas = deltas

    async def generate(self, _request):
        for each in self._deltas:
            yield each
        raise BackendCrashedError("the host is gone", node="gpu:7")


@pytest.mark.parametrize(
    ("deltas", "text"),
    [
        ((), "the host is gone"),
        ((TextDelta("a"),), "the host is gone; the answer breaks off after 1 delta"),
        ((ChatDelta(content="a"), ChatDelta(content="b")), "the host is gone; the answer breaks off after 2 deltas"),
    ],
)
async def test_an_answer_that_breaks_off_says_what_was_sent(deltas, text):
    with pytest.raises(BackendCrashedError) as caught:
        _ = [event async for event in run(Broken(*deltas), SequenceRequest(prompt="p"), guarded=False)]
    assert str(caught.value) == text
    assert caught.value.info == {"node": "gpu:7"} | ({"output_deltas": len(deltas)} if deltas else {})
