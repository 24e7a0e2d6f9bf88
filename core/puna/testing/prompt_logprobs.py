"""Contract tests of the log-probabilities of prompt tokens."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace

from puna.backend import (
    BackendError,
    Finish,
    InvalidRequestError,
    LoadedModel,
    PromptLogprobs,
    PromptTooLongError,
    SequenceRequest,
    TextDelta,
    TokenLogprob,
    UnsupportedError,
)
from puna.testing.answers import Answer, collect, refused
from puna.testing.harness import ContractBase, token_ids

TOLERANCE = 0.05
"""How much two computations of a log-probability may differ that evaluate tokens in batches of other sizes.

Attention over many tokens at once rounds in another way than over one.
"""


class PromptLogprobTests(ContractBase):
    """Log-probabilities of prompt tokens: one for each token from `score_from` on, whatever is cached."""

    async def scored(self, model: LoadedModel, tokens: Sequence[int], start: int, top: int = 2) -> Answer | None:
        """Score a prompt from an index on; return None if the backend refuses to, which it may."""
        request = self.request(prompt=tuple(tokens), max_tokens=0, score_from=start, top_logprobs=top)
        try:
            return await collect(model, request)
        except UnsupportedError:
            self.check_may_lack("prompt_logprobs")
            return None

    async def scorable(self, model: LoadedModel) -> list[int]:
        """Return a prompt whose tokens the model can score; an empty list if there is none."""
        if not model.facts.tokenizer:
            return []
        tokens = await self.tokens_of(model, f"{self.prompt} {self.prompt} {self.prompt}")
        room = model.facts.context_length - 1
        return tokens[:room] if room > 0 else tokens

    def test_each_scored_token_has_a_log_probability(self) -> None:
        """The tokens from `score_from` on have entries, in order, with alternatives, and nothing is generated.

        If it fails: the logits behind the token at index i give the probability of the token at index i + 1. A backend
        that cannot score prompts raises UnsupportedError for a request with `score_from`.
        """

        async def test(model: LoadedModel) -> None:
            tokens = await self.scorable(model)
            for start in {1, 2, len(tokens) // 2, len(tokens) - 1} if len(tokens) > 2 else ():
                for top in (0, 1, 3):
                    answer = await self.scored(model, tokens, start, top)
                    if answer is None:
                        return
                    found = answer.prompt_logprobs
                    assert token_ids(found) == tokens[start:], "the entries are not those of the scored tokens"
                    assert all(len(each.top) == top for each in found), f"an entry has no {top} alternatives"
                    assert all(each.logprob <= 1e-3 for each in found), "a probability is above 1"
                    for each in found:
                        check_rank(each)
                    assert not answer.deltas, "max_tokens is 0, but text was generated"
                    assert answer.finish.prompt_tokens == len(tokens), "the Finish counts all tokens of the prompt"

        self.run(test)

    def test_cached_tokens_are_scored_too(self) -> None:
        """A prompt has the same log-probabilities when the cache holds its beginning, or all of it.

        If it fails: evaluate at least the token before the first scored one again, since its logits are needed.
        """

        async def test(model: LoadedModel) -> None:
            tokens = await self.scorable(model)
            if len(tokens) < 4:
                return
            half = len(tokens) // 2
            fresh = await self.scored(model, tokens, half)
            if fresh is None:
                return
            await collect(model, self.request(prompt=tuple(tokens), max_tokens=1))
            for start in (half, 1, half, len(tokens) - 1, 1):
                again = await self.scored(model, tokens, start)
                assert again is not None
                assert len(again.prompt_logprobs) == len(tokens) - start, "cached tokens have no log-probability"
                close(again.prompt_logprobs[-1:], fresh.prompt_logprobs[-1:], "the last token")
                common = min(len(again.prompt_logprobs), half)
                close(again.prompt_logprobs[-common:], fresh.prompt_logprobs[-common:], f"from {start} on")

        self.run(test)

    def test_an_answer_scores_as_it_was_generated(self) -> None:
        """The tokens of an answer, as a part of a prompt, have the log-probabilities with which they were generated.

        If it fails: take the row of the token before, and no temperature, filter, penalty or bias.
        """

        async def test(model: LoadedModel) -> None:
            answer = await self.with_logprobs(model, self.request(max_tokens=8), 1)
            if answer is None or not model.facts.tokenizer or min(token_ids(answer.logprobs), default=-1) < 0:
                return
            prompt = await self.tokens_of(model, self.prompt)
            given = [*prompt, *token_ids(answer.logprobs)]
            scored = await self.scored(model, given, len(prompt), 1)
            if scored is not None:
                close(scored.prompt_logprobs, answer.logprobs, "the answer's tokens")

        self.run(test)

    def test_scoring_goes_on_with_an_answer(self) -> None:
        """With `max_tokens`, the log-probabilities of the prompt come first, and then the same answer as without them.

        If it fails: sample from the logits of the last token as always.
        """

        async def test(model: LoadedModel) -> None:
            tokens = await self.scorable(model)
            if not tokens or await self.scored(model, tokens, 1) is None:
                return
            plain = self.request(prompt=tuple(tokens), max_tokens=4)
            answer = await collect(model, replace(plain, score_from=1, top_logprobs=1))
            assert token_ids(answer.prompt_logprobs) == tokens[1:]
            expected = await collect(model, plain)
            assert (answer.text, answer.finish.output_tokens) == (expected.text, expected.finish.output_tokens)

        self.run(test)

    def test_many_prompts_are_scored_at_once(self) -> None:
        """Prompts that are scored at the same time, beside one that generates, get what they get alone.

        If it fails: each sequence has its own rows of logits.
        """

        async def test(model: LoadedModel) -> None:
            tokens = await self.scorable(model)
            if len(tokens) < 4 or await self.scored(model, tokens, 1) is None:
                return
            prompts = [[*tokens[: len(tokens) - number], *tokens[1 : 1 + number]] for number in range(4)]
            alone = [await self.scored(model, each, 1) for each in prompts]
            writing = collect(model, self.request(max_tokens=12))
            together = await asyncio.gather(*(self.scored(model, each, 1) for each in prompts), writing)
            for one, other in zip(alone, together, strict=False):
                assert one is not None
                assert isinstance(other, Answer)
                close(other.prompt_logprobs, one.prompt_logprobs, "a prompt beside others")

        self.run(test)

    def test_prompts_that_cannot_be_scored_are_refused(self) -> None:
        """A `score_from` out of range, a prompt of text, and a prompt beyond the context are refused.

        If it fails: raise InvalidRequestError unless 0 < score_from < len(prompt), and for text. A prompt that is
        only scored may be as long as the context. PromptTooLongError has the number of all its tokens.
        """

        async def test(model: LoadedModel) -> None:
            tokens = tuple(await self.scorable(model))
            if len(tokens) < 3 or await self.scored(model, tokens, 1) is None:
                return
            for start in (0, len(tokens), len(tokens) + 5, -1):
                await self.check_unscorable(model, self.request(prompt=tokens, max_tokens=0, score_from=start))
            await self.check_unscorable(model, self.request(max_tokens=0, score_from=1))
            context = model.facts.context_length
            if not context:
                return
            longest = await self.long_prompt(model, 0)
            answer = await self.scored(model, longest, context - 2)
            assert answer is not None
            assert token_ids(answer.prompt_logprobs) == list(longest[-2:])
            # A backend may round the context up.
            too_long = longest * 3
            error = await refused(model, self.request(prompt=too_long, max_tokens=0, score_from=1))
            assert isinstance(error, PromptTooLongError), f"{len(too_long)} tokens gave {error!r}"
            assert error.prompt_tokens == len(too_long)

        self.run(test)

    async def check_unscorable(self, model: LoadedModel, request: SequenceRequest) -> None:
        """Check that a request is refused as invalid."""
        error = await refused(model, request)
        assert isinstance(error, InvalidRequestError), f"score_from={request.score_from} gave {error!r}"

    def test_scoring_can_be_stopped(self) -> None:
        """Closing the generator of a scored prompt frees the slot.

        If it fails: a scored sequence ends like any other.
        """

        async def test(model: LoadedModel) -> None:
            tokens = await self.scorable(model)
            if not tokens or await self.scored(model, tokens, 1) is None:
                return
            long = await self.long_prompt(model, -1) if model.facts.context_length else tuple(tokens)
            for _ in range(2 * model.facts.parallel):
                request = self.request(prompt=long, max_tokens=0, score_from=1, cache_salt=self.salt())
                async with asyncio.timeout(self.stop_seconds), aclosing(model.generate(request)) as events:
                    async for _event in events:
                        break
            assert await self.scored(model, tokens, 1) is not None

        self.run(test)

    def test_undeclared_prompt_log_probabilities_are_refused(self) -> None:
        """A backend never leaves out log-probabilities of a prompt that were asked for.

        If it fails: raise UnsupportedError for a request with `score_from`, before any event.
        """

        async def test(model: LoadedModel) -> None:
            tokens = await self.tokens_of(model, self.prompt) if model.facts.tokenizer else [1, 2, 3]
            request = self.request(prompt=tuple(tokens), max_tokens=0, score_from=1)
            found: list[TokenLogprob] = []
            try:
                async with aclosing(model.generate(request)) as events:
                    async for event in events:
                        assert not isinstance(event, TextDelta), "max_tokens is 0, but text was generated"
                        found += event.logprobs if isinstance(event, PromptLogprobs) else ()
                        if isinstance(event, Finish):
                            assert len(found) == len(tokens) - 1, "log-probabilities of the prompt were left out"
            except BackendError as error:
                assert isinstance(error, UnsupportedError), f"score_from gave {error!r}"  # noqa: PT017
                assert not found, "the refusal came after log-probabilities"
                self.check_may_lack("prompt_logprobs")

        self.run(test)


def check_rank(entry: TokenLogprob) -> None:
    """Check that a token is no more probable than the most probable one, and equals itself among the alternatives."""
    for other in entry.top:
        assert other.logprob <= entry.top[0].logprob, "the most probable alternative comes first"
        if other.token_id == entry.token_id:
            assert abs(other.logprob - entry.logprob) < 1e-3, "the token differs from itself in `top`"
    if entry.top:
        assert entry.logprob <= entry.top[0].logprob + 1e-3, "a token is more probable than the most probable one"


def close(found: Sequence[TokenLogprob], expected: Sequence[TokenLogprob], what: str) -> None:
    """Check that tokens and log-probabilities are the same."""
    assert token_ids(found) == token_ids(expected), f"{what}: other tokens"
    for one, other in zip(found, expected, strict=True):
        # Below this a probability is lost in the rounding of its sum.
        if max(one.logprob, other.logprob) > -50:
            assert abs(one.logprob - other.logprob) < TOLERANCE, f"{what}: {one.logprob} instead of {other.logprob}"
