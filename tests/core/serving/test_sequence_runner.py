import pytest

from puna.backend import Finish, SequenceRequest, TextDelta, TokenLogprob
from puna.serving.answers import LogprobWithText
from puna.serving.sequence_runner import run

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
