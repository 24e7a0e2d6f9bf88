"""Generating, beside llama.cpp with the same weights."""

import asyncio
from contextlib import asynccontextmanager

import llama_cpp
import pytest
from tests.plugins.ctranslate2.convert_demo import DECODER

from puna.backend import (
    Constraint,
    Finish,
    InvalidRequestError,
    ModelSpec,
    PromptTooLongError,
    Sampling,
    SequenceRequest,
    TextDelta,
    UnsupportedError,
)
from puna.testing import collect
from puna_ctranslate2 import CTranslate2Backend

PROMPT = "<|user|>Why is the sky blue?<|assistant|>"
GREEDY = Sampling(temperature=0.0)
HOT = Sampling(temperature=20.0, top_k=0, top_p=1.0)


@asynccontextmanager
async def loaded(folder, **values):
    spec = ModelSpec(**{"path": str(folder), "format": "ctranslate2", "context_length": 256, "threads": 1} | values)
    model = await CTranslate2Backend().load(spec, lambda _: None)
    try:
        yield model
    finally:
        await model.aclose()


@pytest.fixture
async def model(decoder):
    async with loaded(decoder) as model:
        yield model


@pytest.fixture(scope="module")
def llama():
    return llama_cpp.Llama(str(DECODER), n_ctx=256, n_threads=1, logits_all=True, verbose=False)


def request(**values):
    return SequenceRequest(**{"prompt": PROMPT, "sampling": GREEDY, "max_tokens": 32} | values)


async def test_the_text_is_that_of_llama_cpp(model, llama):
    expected = llama(PROMPT, max_tokens=32, temperature=0.0)
    answer = await collect(model, request())
    assert answer.text == expected["choices"][0]["text"]
    assert answer.finish.prompt_tokens == expected["usage"]["prompt_tokens"]
    assert (answer.finish.reason, answer.finish.output_tokens) == ("length", 32)


async def test_an_end_token_ends_the_answer(model, llama):
    expected = llama(PROMPT, max_tokens=200, temperature=0.0)
    answer = await collect(model, request(max_tokens=200))
    assert answer.text == expected["choices"][0]["text"]
    assert answer.finish.reason == expected["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("penalty", [1.0, 1.4])
async def test_log_probabilities_are_those_of_llama_cpp(model, llama, penalty):
    """They do not include the penalty, which the engine applies to the logits that it returns."""
    sampling = Sampling(temperature=0.0, repeat_penalty=penalty)
    answer = await collect(model, request(max_tokens=8, top_logprobs=3, sampling=sampling))
    found = [each for delta in answer.deltas for each in delta.logprobs]
    assert len(found) == 8
    tokens = llama.tokenize(PROMPT.encode(), special=True)
    for each in found:
        llama.reset()
        llama.eval(tokens)
        right = llama_cpp.Llama.logits_to_logprobs(llama.scores[len(tokens) - 1])
        assert each.logprob == pytest.approx(right[each.token_id], abs=0.02)
        assert [other.token_id for other in each.top] == list((-right).argsort()[:3])
        assert [other.logprob for other in each.top] == pytest.approx(sorted(right, reverse=True)[:3], abs=0.02)
        assert each.raw == llama.detokenize([each.token_id], prev_tokens=[1306], special=True)
        tokens.append(each.token_id)


async def test_the_deltas_come_token_by_token(model):
    assert len((await collect(model, request())).deltas) > 20


async def test_sampling_follows_its_parameters(model):
    async def texts(**values):
        return {(await collect(model, request(max_tokens=6, sampling=Sampling(**values)))).text for _ in range(8)}

    assert len(await texts(temperature=20.0, top_k=0, top_p=1.0)) > 1
    (greedy,) = await texts(temperature=0.0)
    assert await texts(temperature=20.0, top_k=1) == {greedy}
    assert await texts(temperature=20.0, top_k=0, top_p=0.0) == {greedy}
    assert await texts(temperature=0.01, top_k=0) == {greedy}
    # More than the vocabulary has, which the engine itself refuses.
    assert await texts(temperature=0.01, top_k=10**6) == {greedy}


async def test_a_penalty_keeps_tokens_from_repeating(model):
    async def repeated(**values):
        answer = await collect(
            model, request(max_tokens=64, top_logprobs=0, sampling=Sampling(temperature=0.0, **values))
        )
        tokens = [each.token_id for delta in answer.deltas for each in delta.logprobs]
        return len(tokens) - len(set(tokens))

    assert await repeated(repeat_penalty=1e6) < await repeated()
    assert await repeated(repeat_penalty=1e6, repeat_last_n=0) == await repeated()


async def test_special_tokens_have_text_only_when_asked_for(model):
    assert await model.detokenize([1, 2], special=False) == [b"", b""]
    assert await model.detokenize([1, 2], special=True) == [b"<s>", b"</s>"]


async def test_the_end_of_the_context_ends_the_sequence(decoder):
    async with loaded(decoder, context_length=16) as model:
        finish = (await collect(model, request(max_tokens=100))).finish
        assert (finish.reason, finish.prompt_tokens + finish.output_tokens) == ("length", 16)
        with pytest.raises(PromptTooLongError):
            await collect(model, request(prompt=(5,) * 16))


async def test_the_context_is_clamped_to_what_the_files_state(decoder):
    async with loaded(decoder, context_length=10**6) as model:
        assert model.facts.context_length == 2048


async def test_sequences_run_at_once_on_their_slots(decoder):
    async with loaded(decoder, parallel=2) as model:
        assert model.facts.parallel == 2
        first = model.generate(request(max_tokens=200, sampling=HOT))
        assert isinstance(await anext(first), TextDelta)
        # The first one holds its slot, and a second ends meanwhile.
        assert (await collect(model, request(max_tokens=4))).finish.output_tokens == 4
        await first.aclose()
        assert model.step() is None


async def test_sequences_need_no_threads_of_the_event_loop(decoder):
    """The event loop has a few threads for all. Sequences must not hold them, since tokenizing needs one."""
    count = 40
    async with loaded(decoder, parallel=count) as model:
        running = [model.generate(request(max_tokens=200, sampling=HOT)) for _ in range(count)]
        async with asyncio.timeout(20):
            await asyncio.gather(*(anext(each) for each in running))
            assert await model.tokenize("a", add_special=False, parse_special=False)
            await asyncio.gather(*(each.aclose() for each in running))


async def test_an_error_of_the_engine_ends_the_sequence(model, monkeypatch):
    monkeypatch.setattr(model._vocabulary, "token_bytes", lambda token, special: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(collect(model, request()), 20)
    monkeypatch.undo()
    assert (await collect(model, request(max_tokens=1))).finish.output_tokens == 1


async def test_a_cancelled_sequence_stops_the_engine(model):
    events = model.generate(request(max_tokens=10_000, sampling=HOT))
    await anext(events)
    assert model.step() is not None
    await events.aclose()
    done = model._work.steps
    assert model.step() is None
    await asyncio.sleep(0.1)
    assert model._work.steps == done < 200


async def test_a_cancelled_sequence_that_waits_leaves_the_line(model):
    events = model.generate(request(max_tokens=200, sampling=HOT))
    await anext(events)
    waiting = asyncio.create_task(collect(model, request()))
    for _ in range(5):  # to the place where it waits, and not until the other one ends
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await events.aclose()
    assert (await collect(model, request(max_tokens=1))).finish.output_tokens == 1


async def test_an_empty_prompt_generates_nothing(model):
    assert (await collect(model, request(prompt=()))).finish == Finish(reason="stop")


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"constraint": Constraint("gbnf", 'root ::= "a"')}, InvalidRequestError),
        ({"sampling": Sampling(logit_bias={1: 2.0})}, UnsupportedError),
        ({"media": (b"image",)}, UnsupportedError),
    ],
)
async def test_what_the_engine_cannot_do_is_refused(model, values, error):
    with pytest.raises(error):
        await collect(model, request(**values))


async def test_the_facts(model, decoder):
    facts = model.facts
    assert (facts.adds_bos, facts.bos_id, facts.bos_text) == (True, 1, "<s>")
    assert (facts.adds_eos, facts.eos_id, facts.eos_text) == (False, 2, "</s>")
    assert (facts.embedding_length, facts.generates) == (0, True)
    # Six layers with keys and values of 128 numbers for each of 256 tokens, beside the weights.
    cache = 6 * 2 * 128 * 256 * 4
    assert facts.size_bytes == (decoder / "model.bin").stat().st_size + cache
    with pytest.raises(UnsupportedError):
        await model.embed(["a"])
