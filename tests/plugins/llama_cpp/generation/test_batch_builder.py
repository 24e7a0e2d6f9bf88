import pytest

from puna_ggml_kernels.loader import SHORTEST_PREFILL, TILED_PREFILL_ROWS
from puna_llama_cpp.generation.batch_builder import BatchBuilder
from puna_llama_cpp.generation.draft_policy import Draft
from puna_llama_cpp.generation.schedule import BatchShare
from puna_llama_cpp.generation.slots import Slots

PROMPT = [1, 7, 8, 9, 50, 51, 52, 7, 8, 9]


class TwoTokens:
    """Drafts the same two tokens, or as many as may be drafted."""

    model = None

    def __init__(self, tokens=(50, 51)):
        self.tokens = tokens

    def draft(self, index, salt, decoding, limit, forced):
        return Draft(list(self.tokens[:limit]), [0] * len(self.tokens[:limit]))


@pytest.fixture
def build(parts, make_sequence, prefill):
    """Place sequences, evaluate all but their last `pending` tokens, and build a batch of these."""
    context = parts(parallel=8).context
    slots = Slots(context, 8)

    def build(*prompts, decoding=True, pending=1, speculate=False, length=None, **request):
        context.length = length or context.length
        sequences = [make_sequence(prompt, **request) for prompt in prompts]
        slots.admit(sequences, 10**6)
        for sequence in sequences:
            if len(sequence.tokens) > pending:
                prefill(context, sequence, len(sequence.tokens) - pending)
            sequence._generated = int(decoding)
        shares = [BatchShare(sequence, sequence.pending, True) for sequence in sequences]
        return BatchBuilder(context, slots, TwoTokens()).build(shares, speculate=speculate), sequences, slots

    return build


def tokens(batch):
    native = batch.batch.native
    return [(native.seq_id[row][0], native.pos[row], native.token[row]) for row in range(native.n_tokens)]


async def test_entries_are_in_the_order_of_the_slots(build):
    step, sequences, _ = build([1, 10, 11], [1, 20, 21], [1, 30, 31])
    slots = [slot for slot, _, _ in tokens(step)]
    assert slots == sorted(sequence.slot for sequence in sequences)
    assert [entry.share.key.slot for entry in step.entries] == slots
    assert [entry.row for entry in step.entries] == [0, 1, 2]
    assert (step.decoding, step.prompt_tokens, step.padding) == (3, 0, {})


async def test_draft_tokens_follow_the_newest_token_with_an_output_each(build):
    step, _, _ = build(PROMPT, speculate=True)
    [entry] = step.entries
    assert entry.draft.tokens == [50, 51]
    assert [token for _, _, token in tokens(step)] == [9, 50, 51]
    assert [step.batch.native.logits[row] for row in range(3)] == [1, 1, 1]
    assert entry.row == 0
    assert step.drafted == 2


@pytest.mark.parametrize(("count", "drafted"), [(1, 2), (4, 8), (5, 0)])
async def test_many_sequences_get_no_drafts(build, count, drafted):
    step, _, _ = build(*([1 + number, *PROMPT] for number in range(count)), speculate=True)
    assert step.drafted == drafted


async def test_drafts_fit_into_a_small_batch(parts, make_sequence, prefill):
    context = parts(parallel=2, batch_size=4).context
    assert context.batch_size == 4
    slots = Slots(context, 2)
    sequence = make_sequence(PROMPT)
    slots.admit([sequence], 10**6)
    while sequence.pending > 1:
        prefill(context, sequence, min(sequence.evaluated + 4, len(PROMPT) - 1))
    sequence._generated = 1
    builder = BatchBuilder(context, slots, TwoTokens(range(50, 90)))
    step = builder.build([BatchShare(sequence, 1, True)], speculate=True)
    assert 0 < step.drafted < 4


@pytest.mark.parametrize(("length", "drafted"), [(11, 0), (12, 1), (13, 2), (14, 2)])
async def test_a_draft_and_the_token_after_it_fit_into_the_context(build, length, drafted):
    step, _, _ = build(PROMPT, speculate=True, length=length)
    assert step.drafted == drafted


@pytest.mark.parametrize(("most", "drafted"), [(2, 0), (3, 1), (4, 2)])
async def test_a_draft_and_the_token_after_it_are_within_the_limit_of_the_request(build, most, drafted):
    step, _, _ = build(PROMPT, speculate=True, max_tokens=most)
    assert step.drafted == drafted


async def test_a_gap_gets_a_token_that_no_entry_has(build):
    _, sequences, slots = build([1, 10, 11], [1, 20, 21], [1, 30, 31])
    middle = sorted(sequences, key=lambda sequence: sequence.slot)[1]
    slots.release(middle)
    rest = [sequence for sequence in sequences if sequence is not middle]
    builder = BatchBuilder(slots._context, slots)
    step = builder.build([BatchShare(sequence, 1, True) for sequence in rest], speculate=False)
    assert list(step.padding) == [middle.slot]
    assert len(tokens(step)) == 3
    assert [entry.row for entry in step.entries] == [0, 2]
    assert step.prompt_tokens == 0


async def test_a_rest_of_a_long_prompt_is_tiled_like_the_whole(build):
    long = [1, *range(3, 203)]
    step, _, _ = build(long, decoding=False, pending=5)
    assert (step.prompt_tokens, step.tiled_from) == (5, 1)
    step, _, _ = build([1, 5, 6], decoding=False, pending=3)
    assert step.tiled_from == TILED_PREFILL_ROWS


async def test_beside_a_decoding_sequence_one_row_is_not_prefill(build, make_sequence):
    _, [decoding], slots = build([1, 20, 21])
    prompt = make_sequence([1, *range(3, 203)])
    slots.admit([prompt], 10**6)
    shares = [BatchShare(decoding, 1, True), BatchShare(prompt, 100, False)]
    step = BatchBuilder(slots._context, slots).build(shares, speculate=False)
    assert (step.decoding, step.prompt_tokens, step.tiled_from) == (1, 100, SHORTEST_PREFILL)
