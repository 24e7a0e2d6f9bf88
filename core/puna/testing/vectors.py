"""Contract tests of embeddings and reranking."""

import asyncio
import math
from collections.abc import Sequence
from typing import ClassVar

from puna.backend import BackendError, Embedding, LoadedModel, PromptTooLongError, UnsupportedError
from puna.testing.answers import refusal
from puna.testing.harness import ContractBase
from puna.testing.stopping import watched

TOLERANCE = 1e-3


class VectorTests(ContractBase):
    """Embedding vectors and scores of documents: one for each input, in order."""

    raw_vectors_have_length_one: ClassVar[bool] = False
    """Set it for a model whose own vectors are already normalised, so that `raw` changes nothing."""
    ranking: ClassVar[tuple[str, ...]] = ("Why is the sky blue?", "Bread was baked here")
    """Documents for the query "Why is the sky blue?", the most relevant one first; empty: the order is not tested."""

    def test_texts_are_embedded_in_order_or_refused(self) -> None:
        """Each text gets its own vector, of length 1, which is the same alone as in a batch.

        If it fails: return the vectors in the order of the inputs, and do not let padding or neighbours into them. A
        model that does not embed has `embedding_length` 0 and raises UnsupportedError.
        """

        async def test(model: LoadedModel) -> None:
            texts = ["the cat", self.prompt, "a dog ran over the hill", "x", "the cat", "Zoë 🙂"]
            if not model.facts.embedding_length:
                error = await refusal(model.embed(texts))
                assert isinstance(error, UnsupportedError), f"embed raised {error!r}"
                return
            if not await self.embeds(model):
                return
            together = await model.embed(texts)
            assert len(together) == len(texts)
            for text, vector in zip(texts, together, strict=True):
                check_vector(vector, model)
                length = math.hypot(*vector.values)
                assert math.isclose(length, 1, rel_tol=TOLERANCE), f"the vector has the length {length}, not 1"
                alone = (await model.embed([text]))[0]
                assert close(vector, alone), f"{text!r} has another vector alone"
                if model.facts.tokenizer:
                    tokens = await self.tokens_of(model, text)
                    assert vector.token_count == alone.token_count == len(tokens)
                    assert close(vector, (await model.embed([tokens]))[0]), "its token ids give another vector"
            assert close(together[0], together[4])
            assert not any(close(together[0], other) for other in together[1:4]), "different texts have one vector"
            assert await model.embed([]) == []
            at_once = await asyncio.gather(*(model.embed([text]) for text in texts))
            assert all(close(one, other[0]) for one, other in zip(together, at_once, strict=True))

        self.run_any(test)

    def test_the_event_loop_stays_free_while_texts_are_embedded(self) -> None:
        """Other tasks run while texts are embedded.

        If it fails: compute in a thread, or give the loop a turn now and then.
        """

        async def test(model: LoadedModel) -> None:
            if not await self.embeds(model):
                return
            gaps: list[float] = []
            while len(gaps) < 3 and min(gaps, default=1) >= self.blocked_seconds:
                async with watched(lambda: asyncio.sleep(0)) as watch:
                    await model.embed([self.prompt, "a dog ran over the hill"] * 4)
                gaps.append(watch.longest)
            assert min(gaps) < self.blocked_seconds, f"nothing else ran for {min(gaps):.3f} s while texts were embedded"

        self.run_any(test)

    async def embeds(self, model: LoadedModel) -> bool:
        """Return whether the model embeds. One that does not know its length, such as an upstream's, may refuse."""
        if model.facts.embedding_length >= 0:
            return model.facts.embedding_length > 0
        try:
            return bool(await model.embed(["a"]))
        except BackendError:
            return False

    def test_raw_vectors_are_not_normalised(self) -> None:
        """`raw` returns the vectors as the model computed them, which have the direction of the normalised ones.

        If it fails: do not divide by the length if `raw` is set.
        """

        async def test(model: LoadedModel) -> None:
            if not await self.embeds(model):
                return
            texts = ["the cat", self.prompt, "a dog ran over the hill"]
            lengths = []
            for raw, unit in zip(await model.embed(texts, raw=True), await model.embed(texts), strict=True):
                check_vector(raw, model)
                lengths.append(math.hypot(*raw.values))
                scaled = Embedding([each / lengths[-1] for each in raw.values], raw.token_count)
                assert close(scaled, unit), "a raw vector has another direction"
                assert raw.token_count == unit.token_count
            ones = all(math.isclose(each, 1, rel_tol=1e-5) for each in lengths)
            assert self.raw_vectors_have_length_one or not ones, "raw vectors are normalised"

        self.run_any(test)

    def test_a_text_that_is_too_long_is_not_embedded(self) -> None:
        """A text beyond `embedding_tokens`, or the context if that is 0, is refused with both numbers.

        If it fails: raise PromptTooLongError(tokens of the text, tokens that fit). The core truncates by these numbers.
        """

        async def test(model: LoadedModel) -> None:
            facts = model.facts
            limit = facts.embedding_tokens or facts.context_length
            if not (facts.embedding_length and facts.tokenizer and limit):
                return
            too_long = await self.long_prompt(model, limit + 1 - facts.context_length)
            batches: list[list[str | Sequence[int]]] = [[too_long], ["fits", too_long, "fits"]]
            for inputs in batches:
                error = await refusal(model.embed(inputs))
                assert isinstance(error, PromptTooLongError), f"{len(too_long)} tokens gave {error!r}"
                assert error.prompt_tokens == len(too_long)
                assert 0 < error.context_length <= limit
                fitting = too_long[: error.context_length - 1]
            (whole,) = await model.embed([fitting])
            assert whole.token_count == len(fitting)
            # Half of the tokens are others.
            half = len(fitting) // 2
            others = await model.tokenize("a dog ran over the hill", add_special=False, parse_special=False)
            changed = (*fitting[:half], *(others * half)[: len(fitting) - half])
            assert not close(whole, (await model.embed([changed]))[0]), "only the beginning of a text is embedded"

        self.run_any(test)

    def test_documents_are_ranked_or_refused(self) -> None:
        """Every document gets a finite score, in order, which is the same alone as among others.

        If it fails: return DocumentScores with one score for each document, in the order of the documents; larger is
        better.
        """

        async def test(model: LoadedModel) -> None:
            query = "Why is the sky blue?"
            documents = [*self.ranking, "The sky is blue because air scatters blue light.", "one", "two", "a b c d"]
            try:
                found = await model.rerank(query, documents)
            # A backend that ranks may have models that do not.
            except UnsupportedError:
                return
            scores = found.scores
            assert len(scores) == len(documents)
            assert found.token_count >= 0
            assert all(math.isfinite(score) for score in scores), f"not all scores are finite: {scores}"
            for document, score in zip(documents, scores, strict=True):
                (alone,) = (await model.rerank(query, [document])).scores
                assert math.isclose(alone, score, rel_tol=0.01, abs_tol=0.01), (
                    f"{document!r}: {alone} alone, not {score}"
                )
            assert len(set(scores)) > 1, "all documents have one score"
            turned = (await model.rerank(query, documents[::-1])).scores
            pairs = zip(turned[::-1], scores, strict=True)
            assert all(math.isclose(one, other, rel_tol=0.01, abs_tol=0.01) for one, other in pairs)
            ranked = list(scores[: len(self.ranking)])
            assert ranked == sorted(ranked, reverse=True), f"the relevant document has a lower score: {ranked}"
            assert list((await model.rerank(query, [])).scores) == []
            others = (await model.rerank("How is bread baked?", documents)).scores
            assert list(others) != list(scores), "the query has no effect"

        self.run_any(test)


def check_vector(vector: Embedding, model: LoadedModel) -> None:
    """Check a vector's length and that its numbers are finite."""
    length = model.facts.embedding_length
    assert len(vector.values) == length or (length < 0 and vector.values), f"a vector has {len(vector.values)} numbers"
    assert all(math.isfinite(each) for each in vector.values), "a vector has numbers that are not finite"


def close(one: Embedding, other: Embedding) -> bool:
    """Return whether two vectors are equal up to rounding."""
    pairs: Sequence[tuple[float, float]] = list(zip(one.values, other.values, strict=True))
    return all(math.isclose(a, b, abs_tol=TOLERANCE) for a, b in pairs)
