import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna import errors
from puna.serving import embed
from puna.serving.requests import EmbedRequest, RequestOptions


@pytest.fixture(autouse=True)
def embeds(backend):
    backend.facts = {"embedding_length": 3}


def asked(*inputs, model="embedder", values=None, **fields):
    return EmbedRequest(model=model, inputs=inputs, options=RequestOptions(values=values or {}), **fields)


async def test_vectors_in_order(serving, backend):
    found = await serving.embed(asked("a", "b"))
    assert [each == pytest.approx((0.6, 0.8, 0)) for each in found.vectors] == [True, True]
    assert (found.usage.prompt_tokens, found.token_counts) == (6, (3, 3))
    assert backend.embedded == ["a", "b"]


@pytest.mark.parametrize(
    ("dimensions", "vector"), [(1, (1,)), (2, (0.6, 0.8)), (3, (0.6, 0.8, 0)), (9, (0.6, 0.8, 0)), (-1, (0.6, 0.8, 0))]
)
async def test_dimensions(serving, dimensions, vector):
    found = await serving.embed(asked("a", dimensions=dimensions))
    assert found.vectors[0] == pytest.approx(vector)


async def test_raw_vectors(serving):
    found = await serving.embed(asked("a", raw=True))
    assert [list(each) for each in found.vectors] == [[3, 4, 0]]
    cut = await serving.embed(asked("a", raw=True, dimensions=2))
    assert math.hypot(*cut.vectors[0]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("", errors.ModelNotFoundError, "model '' not found"),
        ("  ", errors.ModelNotFoundError, "model '  ' not found"),
        ("a b", errors.InvalidModelNameError, "invalid model name"),
        ("nothere", errors.ModelNotFoundError, 'model "nothere" not found, try pulling it first'),
        ("m:cloud", errors.CloudDisabledError, "ollama cloud is disabled: remote model is unavailable"),
    ],
)
async def test_names(serving, name, error, text):
    with pytest.raises(error) as raised:
        await serving.embed(asked("a", model=name))
    assert str(raised.value) == text


async def test_options_are_checked(serving):
    with pytest.raises(errors.OptionTypeError):
        await serving.embed(asked("a", values={"num_ctx": "x"}))


async def test_no_input_loads(serving):
    found = await serving.embed(asked())
    assert (found.vectors, found.timings.total_ns, len(serving.loaded())) == ((), 0, 1)


async def test_a_model_without_vectors_is_still_loaded(serving, backend):
    backend.facts = {}
    assert (await serving.embed(asked(model="plain"))).vectors == ()
    with pytest.raises(errors.EmbeddingsUnsupportedError, match="Start it with `--embeddings`"):
        await serving.embed(asked("a", model="plain"))


class TestLongInputs:
    """The embedder's file says nothing of its ends, so one token is taken to come before a text and one after."""

    async def test_they_are_cut(self, serving, backend):
        await serving.embed(asked("abcdefghij", truncate=True, values={"num_ctx": 8}))
        assert backend.embedded == ["abcdef"]

    async def test_a_character_is_not_cut_in_two(self, serving, backend):
        await serving.embed(asked("éééééé", truncate=True, values={"num_ctx": 7}))
        assert backend.embedded == ["éé"]

    async def test_what_fits_is_left_alone(self, serving, backend):
        await serving.embed(asked("abcdef", truncate=True, values={"num_ctx": 8}))
        assert (backend.embedded, backend.tokenized) == (["abcdef"], [])

    async def test_or_refused(self, serving):
        with pytest.raises(errors.InputTooLongError, match="the input length exceeds the context length"):
            await serving.embed(asked("abcdefg", values={"num_ctx": 8}))

    async def test_what_was_asked_counts_even_if_the_context_is_longer(self, serving):
        with pytest.raises(errors.InvalidRequestError, match="input after truncation exceeds maximum context length"):
            await serving.embed(asked("a", truncate=True, values={"num_ctx": 2}))

    async def test_before_it_is_said_that_the_model_makes_none(self, serving, backend):
        backend.facts = {}
        with pytest.raises(errors.InputTooLongError):
            await serving.embed(asked("abcdefgh", model="plain", values={"num_ctx": 8}))


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=40))
def test_both_ways_of_normalising_have_the_same_bits(values):
    slow, fast = embed._normalised(values), embed._fast_normalised()(values)
    assert list(slow) == list(fast)
