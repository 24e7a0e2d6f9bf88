"""The checks of events, with models that yield a fixed list of them."""

import pytest

from puna.backend import Finish, InvalidRequestError, LoadedModel, ModelFacts, Prefill, SequenceRequest, TextDelta
from puna.testing import collect, refusal, refused

FINISH = Finish(reason="stop", prompt_tokens=3, output_tokens=2)


class Fixed(LoadedModel):
    facts = ModelFacts(context_length=8)

    def __init__(self, *events):
        self.events = events

    async def generate(self, request, /):
        for event in self.events:
            if isinstance(event, Exception):
                raise event
            yield event

    async def tokenize(self, text, /, *, add_special, parse_special):
        raise InvalidRequestError("no")

    async def detokenize(self, tokens, /, *, special):
        return []


REQUEST = SequenceRequest(prompt="a", max_tokens=4)


async def test_an_answer_has_the_text_and_the_progress():
    answer = await collect(Fixed(Prefill(1, 3), Prefill(3, 3), TextDelta("a"), TextDelta("b"), FINISH), REQUEST)
    assert (answer.text, answer.prefills[-1], answer.finish) == ("ab", Prefill(3, 3), FINISH)
    assert answer.elapsed_ns > 0


@pytest.mark.parametrize(
    "events",
    [
        [TextDelta("a")],
        [TextDelta("a"), FINISH, FINISH],
        [TextDelta("a"), Prefill(1, 3), FINISH],
        [Prefill(2, 3), Prefill(1, 3), FINISH],
        [Prefill(1, 3), Prefill(2, 4), FINISH],
        [TextDelta(""), FINISH],
        [TextDelta("a"), Finish(reason="eos", output_tokens=1)],
        [TextDelta("a"), Finish(reason="length", output_tokens=5)],
        [TextDelta("a"), Finish(reason="length", output_tokens=0)],
        [TextDelta("a"), Finish(reason="stop", stop_sequence="x", output_tokens=1)],
        [Finish(reason="stop", prompt_tokens=1, cached_prompt_tokens=2)],
        [Finish(reason="stop", eval_ns=10**12)],
    ],
)
async def test_wrong_events_are_noticed(events):
    with pytest.raises(AssertionError):
        await collect(Fixed(*events), REQUEST)


async def test_a_refusal_comes_before_the_first_delta():
    error = InvalidRequestError("no")
    assert await refused(Fixed(Prefill(1, 1), error), REQUEST) is error
    assert await refused(Fixed(FINISH), REQUEST) is None
    with pytest.raises(AssertionError, match="after the first delta"):
        await refused(Fixed(TextDelta("a"), error), REQUEST)


async def test_a_call_that_is_not_refused_is_noticed():
    model = Fixed()
    assert str(await refusal(model.tokenize("a", add_special=False, parse_special=False))) == "no"
    with pytest.raises(AssertionError):
        await refusal(model.detokenize([], special=False))
