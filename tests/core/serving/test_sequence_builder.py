import pytest

from puna.backend import ModelFacts
from puna.errors import ContextOverflowError, EngineRefusedError
from puna.options import merge
from puna.runtime.requirements import Lease
from puna.serving.requests import RequestOptions
from puna.serving.sequence_builder import SequenceBuilder


class Model:
    """Every character is a token, and a BOS of 1 comes first."""

    async def tokenize(self, text, *, add_special, parse_special):
        return [1] * add_special + [ord(each) for each in text]


def builder(context=10, cuts=True, shift=True, bos="", **options):
    facts = ModelFacts(context_length=context, adds_bos=True, bos_id=1, bos_text="<s>")
    lease = Lease(model=Model(), key="m", backend="b", facts=facts, load_ns=0)
    return SequenceBuilder(
        lease=lease, options=merge(options), request=RequestOptions(), shift=shift, cuts=cuts, bos=bos
    )


async def test_a_short_prompt_is_sent_as_text():
    sequence, cut = await builder().sequence("abc")
    assert (sequence.prompt, cut) == ("abc", 0)


@pytest.mark.parametrize(
    ("bos", "prompt", "sent"), [("", "<s>ab", "ab"), ("<x>", "<x>ab", "ab"), ("", "<s><s>a", "<s>a")]
)
async def test_a_bos_text_is_removed_once_since_the_tokenizer_adds_it(bos, prompt, sent):
    sequence, _ = await builder(bos=bos).sequence(prompt)
    assert sequence.prompt == sent


async def test_a_long_prompt_keeps_its_ends_and_leaves_room_for_an_answer():
    sequence, cut = await builder(num_keep=2).sequence("abcdefghijklmnop")
    assert len(sequence.prompt) <= 9
    assert cut == 17 - len(sequence.prompt)
    assert sequence.prompt[:2] == (1, ord("a"))
    assert sequence.prompt[-1] == ord("p")


async def test_without_a_shift_nothing_is_cut():
    with pytest.raises(ContextOverflowError):
        await builder(shift=False).sequence("abcdefghijklmnop")


async def test_where_nothing_may_be_cut_the_backend_decides():
    sequence, cut = await builder(cuts=False).sequence("abcdefghijklmnop")
    assert (sequence.prompt, cut) == ("abcdefghijklmnop", 0)


async def test_token_ids_are_never_cut():
    with pytest.raises(ContextOverflowError, match="11 tokens"):
        await builder().sequence(tuple(range(11)))


async def test_media_need_a_model_that_takes_them():
    with pytest.raises(EngineRefusedError):
        await builder().sequence("a", (b"image",))


async def test_stop_strings_of_the_layout_come_after_those_of_the_request():
    made = builder(stop=["X"])
    sequence, _ = await SequenceBuilder(
        lease=made.lease, options=made.options, request=made.request, shift=True, cuts=True, stops=("Y",)
    ).sequence("a")
    assert sequence.stop == ("X", "Y")
