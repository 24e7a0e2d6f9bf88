"""Texts far longer than the context: the answers are as if all of a text were tokenized."""

import pytest
from tests.core.serving.asking import answered, prompted, said, user

from puna import errors
from puna.messages import Message
from puna.prompt.truncate import cut_tokens
from puna.serving.lengths import CHUNK, WHOLE, head, tail
from puna.serving.requests import EmbedRequest, RequestOptions, RerankRequest

TEXT = "".join(f"{number:07d} " for number in range(200_000))


def tokens_of(text):
    return [byte + 3 for byte in text.encode()]


@pytest.fixture
def sparing(backend):
    """See that no text is tokenized whole that is longer than a piece."""
    yield backend
    assert max(map(len, backend.tokenized)) <= CHUNK + 256
    assert sum(map(len, backend.tokenized)) < len(TEXT) / 2


@pytest.mark.parametrize("values", [{}, {"num_keep": 5}, {"num_keep": -1}, {"num_ctx": 64, "num_keep": 3}])
@pytest.mark.parametrize("adds_bos", [False, True])
async def test_a_prompt_keeps_the_ends_that_it_would_keep(serving, sparing, values, adds_bos):
    sparing.facts = {"adds_bos": adds_bos}
    _, done = await answered(serving.generate(prompted("plain", TEXT, values=values)))
    whole = [1] * adds_bos + tokens_of(TEXT)
    kept = cut_tokens(whole, values.get("num_ctx", 4096), values.get("num_keep", 4), adds_bos)
    assert list(sparing.requests[0].prompt) == kept
    assert done.usage.truncated_tokens == pytest.approx(len(whole) - len(kept), abs=1)
    assert list(done.context) == kept[adds_bos:]


@pytest.mark.parametrize("fields", [{"truncate": False}, {"shift": False}])
async def test_a_prompt_that_may_not_be_cut_is_refused(serving, sparing, fields):
    with pytest.raises(errors.ContextOverflowError):
        await answered(serving.generate(prompted("plain", TEXT, **fields)))
    assert sparing.requests == []


async def test_a_refusal_names_numbers(serving, sparing):
    with pytest.raises(errors.ContextOverflowError, match=r"request \(at least \d+ tokens\).*4096 tokens"):
        await answered(serving.chat(said("native", TEXT)))


async def test_old_messages_go_first(serving, backend):
    old, new = user(TEXT), user("new")
    await answered(serving.chat(said("talker", old, Message(role="assistant", content="b"), new)))
    assert "new" in str(backend.requests[0].prompt)
    assert len(backend.requests[0].prompt) < 100
    assert sum(map(len, backend.tokenized)) < len(TEXT) / 2


@pytest.mark.parametrize("place", ["system", "suffix", "raw"])
async def test_every_part_of_a_prompt_counts(serving, sparing, place):
    fields = {"system": {"system": TEXT}, "suffix": {"suffix": TEXT}, "raw": {"raw": True}}[place]
    model = {"suffix": "fill", "system": "full", "raw": "plain"}[place]
    prompt = TEXT if place == "raw" else "a"
    await answered(serving.generate(prompted(model, prompt, **fields)))
    assert len(sparing.requests[0].prompt) < 4096


async def test_token_ids_beyond_the_context_are_not_sent(serving, backend):
    with pytest.raises(errors.ContextOverflowError, match="5000 tokens"):
        await answered(serving.generate(prompted("plain", (100,) * 5000)))
    assert backend.requests == []


async def test_a_context_beyond_all_measure(serving):
    with pytest.raises(errors.InvalidRequestError, match="context has"):
        await answered(serving.generate(prompted("plain", "a", context=(100,) * (WHOLE + 1))))


async def test_a_text_to_embed_is_cut_where_it_would_be(serving, sparing):
    sparing.facts = {"embedding_length": 3}
    await serving.embed(EmbedRequest(model="plain", inputs=(TEXT,), options=RequestOptions(), truncate=True))
    assert sparing.embedded == [TEXT[: 4096 - 2]]
    with pytest.raises(errors.InputTooLongError):
        await serving.embed(EmbedRequest(model="plain", inputs=(TEXT,), options=RequestOptions(), truncate=False))


async def test_documents_to_rank(serving, sparing):
    sparing.ranks = True
    for query, documents in (("a", ("b", TEXT)), (TEXT, ("b",))):
        with pytest.raises(errors.ContextOverflowError, match="at least"):
            await serving.rerank(RerankRequest(model="plain", query=query, documents=documents))


async def test_many_documents_are_ranked_in_parts(serving, backend):
    backend.ranks = True
    found = await serving.rerank(RerankRequest(model="plain", query="7", documents=tuple(map(str, range(600)))))
    assert sorted(index for index, score in found.results if score) == [i for i in range(600) if "7" in str(i)]


async def test_tokenizing_has_a_limit(serving, backend):
    with pytest.raises(errors.TooLargeError, match="PUNA_MAX_TOKENIZE_CHARACTERS"):
        await serving.tokenize("plain", "a" * (8 << 20) + "b")
    with pytest.raises(errors.TooLargeError):
        await serving.detokenize("plain", (100,) * ((8 << 20) + 1))
    assert backend.specs == []


class Words:
    """A tokenizer whose tokens are words with the space before them, as in BPE."""

    async def tokenize(self, text, *, add_special, parse_special):
        return [hash(" " + word) for word in text.split(" ")] if text else []


async def test_pieces_meet_between_words():
    text = " ".join(f"word{number}" for number in range(40_000))
    whole = await Words().tokenize(text, add_special=False, parse_special=True)
    found = await head(Words(), text, 20_000)
    assert len(found.tokens) >= 20_000
    inner = [token for token in found.tokens if token != hash(" ")]
    assert inner == whole[: len(inner)]
    assert [token for token in await tail(Words(), text, 20_000) if token != hash(" ")][-19_000:] == whole[-19_000:]


@pytest.mark.parametrize("text", ["", " ", "a", "a" * CHUNK, " " * (CHUNK + 1), "ab" * CHUNK])
async def test_ends_of_texts_of_any_length(text):
    class Bytes:
        async def tokenize(self, text, *, add_special, parse_special):
            return list(text.encode())

    for wanted in (0, 1, len(text), len(text) + 1):
        found = await head(Bytes(), text, wanted)
        assert found.tokens == list(text.encode())[: len(found.tokens)]
        assert len(found.tokens) >= min(wanted, len(text))
        assert await tail(Bytes(), text, wanted) == list(text.encode())[max(len(text) - wanted, 0) :]
