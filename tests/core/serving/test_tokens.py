import pytest

from puna import errors


async def test_tokenize(serving, backend):
    found = await serving.tokenize("plain", "ab", with_pieces=True)
    assert (found.ids, found.pieces, found.context_length) == ((100, 101), (b"a", b"b"), 4096)
    assert (await serving.tokenize("plain", "ab")).pieces == ()


async def test_detokenize(serving):
    assert await serving.detokenize("plain", (1, 100, 101)) == b"ab"


async def test_a_token_that_is_none(serving):
    with pytest.raises(errors.InvalidTokenError):
        await serving.detokenize("plain", (9999,))


async def test_no_model(serving):
    with pytest.raises(errors.ModelRequiredError):
        await serving.tokenize("", "a")
