import pytest

from puna.backend import Backend, BackendError, LoadedModel, ModelFacts, PromptTooLongError, UnsupportedError


class Least(LoadedModel):
    facts = ModelFacts(context_length=8)

    async def generate(self, request, /):
        yield

    async def tokenize(self, text, /, *, add_special, parse_special):
        return []

    async def detokenize(self, tokens, /, *, special):
        return []


async def test_a_model_need_neither_embed_nor_rank_nor_count_steps():
    with pytest.raises(UnsupportedError):
        await Least().embed(["a"])
    with pytest.raises(UnsupportedError):
        await Least().rerank("a", ["b"])
    assert Least().step() is None
    await Least().aclose()


def test_a_backend_must_load():
    with pytest.raises(TypeError, match="load"):
        Backend()


def test_a_prompt_that_is_too_long_says_both_numbers():
    error = PromptTooLongError(9, 8)
    assert isinstance(error, BackendError)
    assert (error.prompt_tokens, error.context_length) == (9, 8)
    assert "9 tokens" in str(error)
