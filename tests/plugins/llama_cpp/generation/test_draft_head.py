"""A head drafts what it was made for, reads what the model keeps, and never changes the text."""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass

import llama_cpp.llama_cpp as lib
import numpy as np
import pytest
from tools.architectures import make

from puna.backend import Sampling, SequenceRequest
from puna_llama_cpp.binding.batch import Batch
from puna_llama_cpp.binding.context import AbortedError
from puna_llama_cpp.generation.draft_head import WAITING_TOKENS, Head
from puna_llama_cpp.generation.draft_policy import NO_DRAFT, Learned, StepCosts
from puna_llama_cpp.generation.drafter import Asked
from puna_llama_cpp.generation.ngram_index import NgramIndex
from puna_llama_cpp.generation.speculation import Speculator
from puna_llama_cpp.loading import LoadedParts

TEXT = [1, *range(20, 90)]
GREEDY = Sampling(temperature=0)
HEAD = {"context_length": 512, "draft_tokens": 4}


OUTPUTS = tuple(f"{name}.weight" for name in ("attn_output", "ssm_out", "ffn_down", "ffn_down_exps", "ffn_down_shexp"))


def make_equal(weights):
    """Make the model name a token by the last one alone, and the head do the same."""
    for name, values in weights.items():
        if name.endswith(OUTPUTS):
            values[:] = 0
        if name.endswith(("nextn.enorm.weight", "nextn.shared_head_norm.weight", "output_norm.weight")):
            values[:] = 1
    weights["output.weight"][:7] = 0  # control tokens, some of which would end the text
    projection = weights["blk.2.nextn.eh_proj.weight"]  # from an embedding and a hidden state
    projection[:] = np.eye(*projection.shape)
    weights["blk.2.nextn.embed_tokens.weight"][:] = weights["token_embd.weight"]
    weights["blk.2.nextn.shared_head_head.weight"][:] = weights["output.weight"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model whose head is random, one whose head agrees with it, and a model with an EAGLE-3 head beside it."""
    folder = tmp_path_factory.mktemp("heads")
    make.make(folder / "llama.gguf", "llama")
    make.make(folder / "eagle.gguf", "eagle3")
    make.make(folder / "random.gguf", "hy_v3", experts=True, heads=1)
    make.make(folder / "equal.gguf", "hy_v3", experts=True, heads=1, change=make_equal)
    make.make(folder / "hybrid.gguf", "qwen35moe", experts=True, heads=1)
    make.make(folder / "equal-hybrid.gguf", "qwen35", heads=1, change=make_equal)
    return folder


@pytest.fixture(params=["equal", "equal-hybrid"])
def equal(files, request):
    return {"path": str(files / f"{request.param}.gguf")}


@pytest.fixture
def cheap(monkeypatch):
    """A machine where drafts cost next to nothing, as for a large model."""
    monkeypatch.setattr(StepCosts, "step_seconds", lambda *_: 1.0)
    monkeypatch.setattr(StepCosts, "row_share", lambda *_: 0.02)
    monkeypatch.setattr(Head, "_pass_share", lambda *_: 0.02)


@pytest.fixture
def only_head(cheap, monkeypatch):
    """Nothing is drafted from earlier text."""
    monkeypatch.setattr(Speculator, "draft", lambda *_: NO_DRAFT)


@dataclass
class Opened:
    """A model with a head, without threads."""

    parts: LoadedParts

    @property
    def head(self):
        return self.parts.speculator.head

    def evaluate(self, slot, tokens, start, index, kept=None):
        """Evaluate tokens from `start` on, of which the first ones are kept."""
        context = self.parts.context
        batch = Batch(context.batch_size)
        batch.add(slot, start, tokens[start:], output=True)
        context.truncate(slot, start)
        context.decode(batch)
        kept = len(tokens) - start if kept is None else kept
        self.head.read(slot, index, tokens[: start + kept], start, self.head.model_states.rows(0, kept))

    def ask(self, slot, text, index, limit=4):
        """Return the tokens of a draft."""
        drafts = self.head.draft([Asked(slot, text, index, limit, Learned())], 1, StepCosts())
        return drafts[slot].tokens if drafts else []


@pytest.fixture(params=["random", "eagle"])
def opened(parts, files, cheap, request):
    if request.param == "eagle":
        return Opened(parts(path=str(files / "llama.gguf"), draft_path=str(files / "eagle.gguf"), **HEAD))
    return Opened(parts(path=str(files / "random.gguf"), **HEAD))


@pytest.fixture
def first(opened):
    """The position of the first cell of a text: EAGLE-3 leaves out the first token."""
    return int(opened.head._fuses)


def cells(head, slot):
    """Return the first and the last position in the KV cache of a slot."""
    memory = lib.llama_get_memory(head._context.pointer)
    return lib.llama_memory_seq_pos_min(memory, slot), lib.llama_memory_seq_pos_max(memory, slot)


def test_a_text_read_in_parts_gives_the_draft_of_the_whole(opened, first):
    """Short parts wait, long ones do not, and rejected tokens leave nothing behind."""
    whole, index = list(TEXT), NgramIndex([])
    opened.evaluate(1, whole, 0, index)
    expected = opened.ask(1, [*whole, 99], index)
    assert len(expected) > 1
    index, end = NgramIndex([]), 0
    for length in (1, 2, WAITING_TOKENS + 1, 3, 1, 1, 5, 2, len(TEXT)):
        text = TEXT[: end + length]
        # A draft that is rejected: three more tokens are evaluated and removed again.
        opened.evaluate(2, [*text, 7, 8, 9], end, index, kept=len(text) - end)
        end = len(text)
        opened.ask(2, [*text, 99], index)
    assert end == len(TEXT)
    assert opened.ask(2, [*TEXT, 99], index) == expected
    # The text's cells, and of the draft the newest token and all drafted ones but the last.
    assert cells(opened.head, 2) == (first, end + len(expected) - 1)


def test_a_prompt_that_shares_the_text_of_its_slot_keeps_the_cells(opened, first):
    index, other = NgramIndex([]), NgramIndex([])
    opened.evaluate(0, TEXT, 0, index)
    text = opened.head._texts[0]
    opened.ask(0, [*TEXT, 99], index)
    longer = [*TEXT, 30, 31, 32]
    opened.evaluate(0, longer, len(TEXT), other)
    assert opened.head._texts[0] is text
    assert text.tokens == longer[first:]
    opened.evaluate(3, longer, 0, NgramIndex([]))
    assert np.allclose(text.last, opened.head._texts[3].last, atol=1e-2)
    shorter = [*TEXT[:40], 9, 8, 7]
    opened.evaluate(0, shorter, 40, NgramIndex([]))
    assert opened.head._texts[0] is text
    assert (text.start, text.tokens) == (first, shorter[first:])


def test_a_waiting_text_is_cut_like_one_in_the_cache(opened, first):
    index = NgramIndex([])
    opened.evaluate(0, TEXT[:7], 0, index)
    text = opened.head._texts[0]
    assert (text.cells, len(np.vstack(text.waiting))) == (0, 7 - first)
    other = NgramIndex([])
    opened.evaluate(0, [*TEXT[:4], 5], 4, other)
    assert (text.cells, len(np.vstack(text.waiting)), text.tokens) == (0, 5 - first, [*TEXT[first:4], 5])
    assert opened.ask(0, [*TEXT[:4], 5, 6], other)


def test_a_cell_is_made_of_a_token_and_the_state_of_the_token_before(opened, first, monkeypatch):
    head, given = opened.head, {}

    def decode(batch):
        for row in range(batch.length):
            given[int(batch._positions[row])] = int(batch._tokens[row]), batch.states[row].copy()

    index = NgramIndex([])
    with monkeypatch.context() as patch:
        patch.setattr(head._context, "decode", decode)
        opened.evaluate(0, TEXT[:50], 0, index)
        opened.evaluate(0, TEXT[:53], 50, index)
        opened.evaluate(0, TEXT, 53, index)
    batch = Batch(opened.parts.context.batch_size)
    opened.parts.context.truncate(0, 0)
    batch.add(0, 0, TEXT, output=True)
    opened.parts.context.decode(batch)
    states = head.model_states.rows(0, len(TEXT))
    states = head._states.fuse(states) if first else states
    assert min(given) == first
    for position, (token, state) in given.items():
        assert token == TEXT[position]
        assert np.allclose(state, states[position - 1] if position else 0, atol=5e-2)


def test_another_text_in_the_slot_begins_anew(opened):
    """Also in the middle, as where a prompt was copied from another slot."""
    opened.evaluate(0, TEXT, 0, NgramIndex([]))
    opened.evaluate(1, TEXT[::-1], 0, NgramIndex([]))
    opened.parts.context.copy(1, 0)
    index = NgramIndex([])
    text = [*TEXT[:0:-1], *range(100, 105)]
    opened.evaluate(0, text, 60, index)
    # The first token that was evaluated here has no state before it.
    assert (opened.head._texts[0].start, opened.head._texts[0].tokens) == (61, text[61:])
    assert opened.ask(0, [*text, 9], index)
    assert cells(opened.head, 0)[0] == 61


def test_a_head_that_has_not_paid_reads_no_long_text(opened):
    opened.head._balance = -1
    index = NgramIndex([])
    opened.evaluate(0, TEXT, 0, index)
    assert opened.head._texts[0].tokens == []
    assert cells(opened.head, 0) == (-1, -1)
    text = [*TEXT, *range(100, 105)]
    opened.evaluate(0, text, len(TEXT), index)
    assert opened.ask(0, [*text, 9], index)
    assert cells(opened.head, 0)[0] == len(TEXT)


def test_no_draft_before_the_state_of_the_last_token_is_known(opened):
    index = NgramIndex([])
    opened.evaluate(0, TEXT, 0, index)
    assert opened.ask(0, [*TEXT, 1, 2], index) == []
    assert opened.ask(0, [*TEXT, 1], NgramIndex([])) == []
    assert opened.ask(1, [*TEXT, 1], index) == []
    assert opened.ask(0, [*TEXT, 1], index) != []


def test_a_failing_head_is_not_asked_again(opened, caplog):
    index = NgramIndex([])
    opened.evaluate(0, TEXT, 0, index)
    opened.head._texts[0].cells -= 3  # positions that do not follow each other
    assert opened.ask(0, [*TEXT, 1], index) == []
    opened.evaluate(1, TEXT, 0, index)
    assert opened.ask(1, [*TEXT, 1], index) == []
    assert caplog.text.count("the draft model failed") == 1


async def test_all_tokens_of_an_equal_head_are_accepted(load, write, equal, only_head):
    plain, model = await load(parallel=1, **equal), await load(parallel=1, **equal, draft_tokens=4)
    for prompt in ("the wind", "stone " * 60):
        texts, end = await write(model, prompt, max_tokens=60)
        assert texts == (await write(plain, prompt, max_tokens=60))[0]
        assert end.accepted_draft_tokens == end.draft_tokens >= 0.7 * end.output_tokens


@pytest.mark.parametrize(
    ("name", "draft"),
    [("random", None), ("equal", None), ("hybrid", None), ("equal-hybrid", None), ("llama", "eagle")],
)
async def test_no_token_changes_the_text(load, write, files, name, draft, cheap):
    """Also beside drafts from earlier text, behind cached prompts, and for sampled answers."""
    path = {"path": str(files / f"{name}.gguf"), "parallel": 2}
    plain = await load(**path, context_length=512, backend_options={"speculative_decoding": False})
    model = await load(**path, **HEAD, draft_path=str(files / f"{draft}.gguf") if draft else None)
    drafted = accepted = 0
    for number in range(10):
        # The llama's weights are of no type that kernels know, so that drafts change the last bits of its logits.
        temperature = 0 if draft else number % 4 / 2
        sampling = Sampling(temperature=temperature, seed=number, repeat_penalty=1 + number % 2 / 10)
        request = {"sampling": sampling, "top_logprobs": 1, "max_tokens": 5 + 7 * number}
        prompt = "the wind and sun " * (1 + number % 3 * 8)
        texts, end = await write(model, prompt, **request)
        assert texts == (await write(plain, prompt, **request))[0]
        drafted, accepted = drafted + end.draft_tokens, accepted + end.accepted_draft_tokens
    assert accepted < drafted
    assert drafted > 30


async def test_sequences_beside_each_other_and_in_one_slot_keep_their_texts(load, write, equal, only_head):
    """More sequences than slots, so that each slot changes hands; some are cancelled in the middle."""
    plain, model = await load(parallel=1, context_length=512, **equal), await load(parallel=3, **equal, **HEAD)
    requests = [
        {
            "prompt": "river " * (1 + number % 4 * 20) + chr(97 + number),
            "sampling": Sampling(seed=number, temperature=t),
        }
        for number, t in enumerate((0, 0.4, 0) * 3)
    ]

    async def give_up(number):
        request = SequenceRequest(prompt=f"give up {number}", sampling=GREEDY, max_tokens=500)
        async with aclosing(model.generate(request)) as events:
            for _ in range(number):
                await anext(events)

    *found, _ = await asyncio.gather(
        *(write(model, max_tokens=90, **each) for each in requests), asyncio.gather(*map(give_up, range(1, 6)))
    )
    # While sequences wait, nothing is drafted.
    assert sum(end.accepted_draft_tokens for _, end in found) > 20
    for each, (texts, _) in zip(requests, found, strict=True):
        assert texts == (await write(plain, max_tokens=90, **each))[0]


async def test_a_shifted_context_keeps_its_text(load, write, files, only_head):
    equal = {"path": str(files / "equal.gguf")}
    request = {"max_tokens": 330, "sampling": Sampling(temperature=0, logit_bias={2: -1000}), "keep_tokens": 5}
    plain = await load(parallel=1, context_length=256, **equal)
    model = await load(parallel=1, context_length=256, draft_tokens=4, **equal)
    texts, end = await write(model, "hello", **request)
    assert end.output_tokens > 300
    assert texts == (await write(plain, "hello", **request))[0]
    assert end.accepted_draft_tokens > 50


def test_a_recurrent_state_goes_back_to_the_last_accepted_token(parts, files):
    """Also where it is copied then, and not to a token of an earlier batch."""
    opened = parts(path=str(files / "hybrid.gguf"), parallel=3, **HEAD)
    context, text = opened.context, TEXT[:40]
    expected = logits_behind(context, 2, text, 0)
    context.truncate(0, 0)
    logits_behind(context, 0, [*text[:30], 7, 8, 9], 0)
    logits_behind(context, 0, [*text[:33], 7, 8, 9], 30, reject=3)
    assert context.copy(0, 1)
    assert np.array_equal(logits_behind(context, 0, text, 33), expected)
    assert np.array_equal(logits_behind(context, 1, text, 33), expected)
    assert context.truncate(0, 39) == 0
    assert context.truncate(1, 40) == 40


def test_a_recurrent_state_is_gone_after_an_aborted_batch(parts, files):
    """llama.cpp goes back by itself, to a state that the batch has not written."""
    context, text = parts(path=str(files / "hybrid.gguf"), parallel=2, **HEAD).context, TEXT[:40]
    expected = logits_behind(context, 1, text, 0)
    logits_behind(context, 0, text[:30], 0)
    logits_behind(context, 0, text[:38], 30)
    context.set_abort(True)
    with pytest.raises(AbortedError):
        logits_behind(context, 0, [*text[:38], 7, 8], 38)
    context.set_abort(False)
    assert np.array_equal(logits_behind(context, 0, text, context.undo(0, 38)), expected)


def logits_behind(context, slot, tokens, start, reject=0):
    """Evaluate tokens from `start` on, one after the other at the end, and return the logits of the last one."""
    batch = Batch(context.batch_size)
    batch.add(slot, context.reject(slot, start), tokens[start:], output=True)
    context.decode(batch)
    found = context.logits(len(tokens) - start - 1).copy()
    if reject:
        assert context.reject(slot, len(tokens) - reject) == len(tokens) - reject
    return found


async def test_a_conversation_goes_on_behind_rejected_tokens(load, write, files, only_head):
    """The state of a slot is that of its text, wherever an answer ended among draft tokens."""
    path = {"path": str(files / "hybrid.gguf"), "parallel": 2}
    plain, model = await load(context_length=512, **path), await load(**path, **HEAD)
    prompt, cached, drafted = "the wind", 0, 0
    for number in range(12):
        request = {"sampling": Sampling(seed=number, temperature=0.8), "max_tokens": 3 + number}
        texts, end = await write(model, prompt, **request)
        assert texts == (await write(plain, prompt, **request))[0]
        prompt, cached, drafted = prompt + "".join(texts), cached + end.cached_prompt_tokens, drafted + end.draft_tokens
    assert cached > 100
    assert drafted > 10
