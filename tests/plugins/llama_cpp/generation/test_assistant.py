"""An assistant drafts from the KV cache of its model, leaves it as it was, and never changes the text."""

import asyncio

import numpy as np
import pytest
from tools.architectures import make

from puna.backend import Sampling
from puna_llama_cpp.binding.batch import Batch
from puna_llama_cpp.generation.assistant import Assistant
from puna_llama_cpp.generation.draft_policy import NO_DRAFT, Learned, StepCosts
from puna_llama_cpp.generation.drafter import Asked
from puna_llama_cpp.generation.ngram_index import NgramIndex
from puna_llama_cpp.generation.speculation import Speculator

TEXT = [1, *range(20, 120)]
"""Longer than the sliding window."""
OUTPUTS = ("attn_output.weight", "ffn_down.weight", "per_layer_proj.weight", ".proj.weight")
FOREVER = Sampling(temperature=0, logit_bias={2: -1000})


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model with a random assistant, and one whose assistant agrees with it."""
    folder, of_model = tmp_path_factory.mktemp("assistants"), {}

    def name_by_last_token(weights):
        for name, values in weights.items():
            if name.endswith(OUTPUTS):
                values[:] = 0
            if name == "output_norm.weight":
                values[:] = 1
        if "output.weight" in weights:
            weights["output.weight"][:7] = 0  # control tokens, some of which would end the text
        of_model.update({} if of_model else weights)

    def agree(weights):
        name_by_last_token(weights)
        projection, output = weights["nextn.pre_projection.weight"], of_model["output.weight"]
        projection[:] = np.eye(*projection.shape)  # the embedding, and the hidden state behind it
        weights["token_embd.weight"][:] = np.hstack((output, np.zeros_like(output)))

    make.make(folder / "random.gguf", "gemma4")
    make.make(folder / "random-assistant.gguf", "gemma4-assistant")
    make.make(folder / "equal.gguf", "gemma4", change=name_by_last_token)
    make.make(folder / "equal-assistant.gguf", "gemma4-assistant", change=agree)
    return folder


@pytest.fixture
def spec(files, monkeypatch):
    """Return a specification, on a machine where drafts cost next to nothing, as for a large model."""
    monkeypatch.setattr(StepCosts, "step_seconds", lambda *_: 1.0)
    monkeypatch.setattr(StepCosts, "row_share", lambda *_: 0.02)
    monkeypatch.setattr(Assistant, "_pass_share", lambda *_: 0.02)

    def spec(name, **more):
        draft = {"draft_path": str(files / f"{name}-assistant.gguf"), "draft_tokens": 4}
        return {"path": str(files / f"{name}.gguf"), "context_length": 512, **draft, **more}

    return spec


@pytest.fixture
def only_assistant(monkeypatch):
    """Nothing is drafted from earlier text."""
    monkeypatch.setattr(Speculator, "draft", lambda *_: NO_DRAFT)


def without(spec):
    return {**spec, "draft_path": None, "draft_tokens": 0, "backend_options": {"speculative_decoding": False}}


class Opened:
    """A model with an assistant, without threads."""

    def __init__(self, parts):
        self.context, self.assistant = parts.context, parts.speculator.head

    def evaluate(self, slot, tokens, start, index, reject=0):
        """Evaluate tokens from `start` on, of which the last ones are rejected."""
        batch = Batch(self.context.batch_size)
        batch.add(slot, start, tokens[start:], output=True)
        self.context.decode(batch)
        logits = self.context.logits(len(tokens) - start - 1).copy()
        end = len(tokens) - reject
        states = self.assistant.model_states.rows(0, end - start).copy()
        self.context.reject(slot, end)
        self.assistant.read(slot, index, tokens[:end], start, states)
        return logits

    def ask(self, *asked, limit=4):
        """Return the tokens of the drafts of slots, each with its text and index."""
        drafts = self.assistant.draft([Asked(*each, limit, Learned()) for each in asked], 1, StepCosts())
        return [drafts[slot].tokens if slot in drafts else [] for slot, _, _ in asked]


@pytest.fixture
def opened(parts, spec):
    return Opened(parts(**spec("random")))


def test_a_draft_depends_on_the_text_and_not_on_its_history(opened):
    """Read in parts, behind rejected tokens, copied from another slot, or beside other slots."""
    index = [NgramIndex([]) for _ in range(4)]
    opened.evaluate(0, TEXT, 0, index[0])
    [expected] = opened.ask((0, [*TEXT, 99], index[0]))
    assert len(expected) > 1
    other = [*TEXT[:0:-1], *TEXT[-2:]]
    opened.evaluate(1, other, 0, index[1])
    assert opened.ask((1, [*other, 99], index[1])) != [expected]
    for start, end, rejected in ((0, 60, 0), (60, 61, 3), (61, len(TEXT), 2)):
        opened.evaluate(2, [*TEXT[:end], 7, 8, 9][: end + rejected], start, index[2], reject=rejected)
        opened.ask((2, [*TEXT[:end], 99], index[2]))
    assert opened.ask((2, [*TEXT, 99], index[2])) == [expected]
    assert opened.context.copy(0, 3)
    opened.context.truncate(3, len(TEXT) - 1)
    opened.evaluate(3, TEXT, len(TEXT) - 1, index[3])
    asked = [(slot, [*(other if slot == 1 else TEXT), 99], index[slot]) for slot in range(4)]
    assert [found for slot, found in enumerate(opened.ask(*asked)) if slot != 1] == [expected] * 3


def test_a_draft_leaves_the_cache_of_the_model_as_it_was(opened):
    found = []
    for slot, drafts in enumerate((True, False)):
        index, end = NgramIndex([]), 0
        for text in (TEXT, [*TEXT, 99], [*TEXT, 99, 98]):
            logits = opened.evaluate(slot, text, end, index)
            end = len(text)
            if drafts:
                assert opened.ask((slot, [*text, 97], index)) == opened.ask((slot, [*text, 97], index)) != [[]]
        found.append(logits)
    assert np.array_equal(*found)


def test_the_attention_of_an_assistant_reads_the_text(opened):
    """Two texts that differ only far from the end, so that the state of the last token is forced to be the same."""
    first, second = NgramIndex([]), NgramIndex([])
    opened.evaluate(0, TEXT, 0, first)
    changed = [1, *range(200, 200 + len(TEXT) - 2), TEXT[-1]]
    opened.evaluate(1, changed, 0, second)
    state = opened.assistant._newest[0].state
    opened.assistant._newest[1].state = state
    found = []
    for slot, text, index in ((0, TEXT, first), (1, changed, second)):
        opened.ask((slot, [*text, 99], index), limit=1)
        found.append(opened.assistant._context.logits(0).copy())
    assert not np.allclose(found[0], found[1], atol=1e-3)


def test_no_draft_before_the_state_of_the_last_token_is_known(opened):
    index = NgramIndex([])
    opened.evaluate(0, TEXT, 0, index)
    assert opened.ask((0, [*TEXT, 1, 2], index)) == [[]]
    assert opened.ask((0, [*TEXT, 1], NgramIndex([]))) == [[]]
    assert opened.ask((1, [*TEXT, 1], index)) == [[]]
    assert opened.ask((0, [*TEXT, 1], index)) != [[]]


def test_a_failing_assistant_is_not_asked_again(opened, caplog):
    index = NgramIndex([])
    opened.evaluate(0, TEXT, 0, index)
    opened.context.truncate(0, 50)  # positions that do not follow each other
    assert opened.ask((0, [*TEXT, 1], index)) == [[]]
    opened.evaluate(1, TEXT, 0, index)
    assert opened.ask((1, [*TEXT, 1], index)) == [[]]
    assert caplog.text.count("the draft model failed") == 1


@pytest.mark.parametrize("options", [{}, {"flash_attention": "off"}, {"kv_cache_type": "q8_0"}])
async def test_all_tokens_of_an_equal_assistant_are_accepted(load, write, spec, only_assistant, options):
    given = spec("equal", parallel=1, **options)
    plain, model = await load(**without(given)), await load(**given)
    for prompt in ("the wind", "stone " * 60):
        texts, end = await write(model, prompt, max_tokens=60)
        assert texts == (await write(plain, prompt, max_tokens=60))[0]
        assert end.accepted_draft_tokens == end.draft_tokens >= 0.7 * end.output_tokens


@pytest.mark.parametrize("name", ["random", "equal"])
async def test_no_token_changes_the_text(load, write, spec, name):
    """Also beside drafts from earlier text, behind cached prompts."""
    given = spec(name, parallel=2)
    plain, model = await load(**without(given)), await load(**given)
    drafted = 0
    for number in range(8):
        request = {
            "sampling": Sampling(temperature=0, repeat_penalty=1 + number % 2 / 10),
            "top_logprobs": 1,
            "max_tokens": 5 + 7 * number,
        }
        prompt = "the wind and sun " * (1 + number % 3 * 8)
        texts, end = await write(model, prompt, **request)
        assert texts == (await write(plain, prompt, **request))[0]
        drafted += end.draft_tokens
    assert drafted > 30


async def test_sequences_beside_each_other_keep_their_texts(load, write, spec, only_assistant):
    """More sequences than slots, so that each slot changes hands."""
    given = spec("equal", parallel=3)
    plain, model = await load(**without(given)), await load(**given)
    prompts = ["river " * (1 + number % 4 * 20) + chr(97 + number) for number in range(6)]
    found = await asyncio.gather(*(write(model, prompt, max_tokens=90) for prompt in prompts))
    # While sequences wait, nothing is drafted.
    assert sum(end.accepted_draft_tokens for _, end in found) > 20
    for prompt, (texts, _) in zip(prompts, found, strict=True):
        assert texts == (await write(plain, prompt, max_tokens=90))[0]


async def test_a_shifted_context_keeps_its_text(load, write, spec, only_assistant):
    given = spec("equal", parallel=1, context_length=256)
    plain, model = await load(**without(given)), await load(**given)
    request = {"max_tokens": 330, "sampling": FOREVER, "keep_tokens": 5}
    texts, end = await write(model, "hello", **request)
    assert end.output_tokens > 300
    assert texts == (await write(plain, "hello", **request))[0]
    assert end.accepted_draft_tokens > 50
