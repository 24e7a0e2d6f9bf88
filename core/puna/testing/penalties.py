"""Contract tests of what changes logits: biases, penalties, and the special tokens that a bias can bring forth.

A bias of a thousand makes the model write any token, so that each rule shows in the text. A backend without
logit_bias is tested by what its penalties do to text that repeats itself.
"""

import itertools
from dataclasses import replace
from typing import Any

from puna.backend import BackendError, LoadedModel, Sampling
from puna.testing.answers import collect, refused
from puna.testing.harness import GREEDY, STRONG_BIAS, ContractBase, token_ids

FULL, LESS = STRONG_BIAS, 0.8 * STRONG_BIAS
"""Biases of the first and the second token that the model is made to write."""
SMALL_VOCABULARY = 2048
"""Tokens of the largest vocabulary of which each token gets a bias."""


class PenaltyTests(ContractBase):
    """logit_bias, repeat, presence and frequency penalties, special tokens in the output."""

    def test_a_bias_is_obeyed_or_refused(self) -> None:
        """`logit_bias` is added to the logits of exactly its tokens, before anything else.

        If it fails: add each bias to the logit of its token id, at any temperature, or raise UnsupportedError.
        """

        async def test(model: LoadedModel) -> None:
            if not await self.takes_bias(model):
                return
            (one, text), (other, _), *_ = await self.plain_tokens(model, 2)
            hot = Sampling(temperature=2.0, seed=1)
            for sampling in (GREEDY, hot):
                forced = replace(sampling, logit_bias={one: FULL, other: LESS})
                answer = await collect(model, self.request(sampling=forced, max_tokens=4))
                assert answer.text.replace(" ", "") == text * 4, f"a bias for {text!r} gives {answer.text!r}"
            # A ban takes away what the model prefers, and nothing else.
            whole = await self.with_logprobs(model, self.request(max_tokens=6), 2)
            if whole is not None and whole.logprobs:
                first = whole.logprobs[0]
                banned = replace(GREEDY, logit_bias={first.token_id: -STRONG_BIAS})
                answer = await collect(model, self.request(sampling=banned, max_tokens=6, top_logprobs=2))
                assert first.token_id not in token_ids(answer.logprobs), "a bias of -1000 did not ban its token"
                small = replace(GREEDY, logit_bias={first.token_id: 1.5})
                same = await collect(model, self.request(sampling=small, max_tokens=1))
                assert same.text == (await collect(model, self.request(max_tokens=1))).text
                # Just less than what would make the second token the first.
                gap = first.top[0].logprob - first.top[1].logprob
                for share, expected in ((0.5, first.top[0]), (1.5, first.top[1])):
                    moved = replace(GREEDY, logit_bias={first.top[1].token_id: gap * share})
                    answer = await collect(model, self.request(sampling=moved, max_tokens=1, top_logprobs=0))
                    if gap > 0.01 and answer.logprobs:
                        assert answer.logprobs[0].token_id == expected.token_id, "a bias is not added to the logit"

        self.run(test)

    def test_presence_penalty(self) -> None:
        """`presence_penalty` is subtracted once from the logits of tokens that occurred.

        If it fails: subtract it from the logit of each token among the last `repeat_last_n`, however often it occurred.
        """

        async def test(model: LoadedModel) -> None:
            # After its first occurrence the better token has 100 less, which leaves it the better one for ever.
            await self.check_letters(model, "aaaaaa", presence_penalty=100.0)
            await self.check_letters(model, "abaaaa", presence_penalty=300.0)

        self.run(test)

    def test_frequency_penalty(self) -> None:
        """`frequency_penalty` is subtracted for each occurrence of a token.

        If it fails: multiply it with the number of occurrences among the last `repeat_last_n` tokens.
        """

        async def test(model: LoadedModel) -> None:
            await self.check_letters(model, "aababa", frequency_penalty=140.0)

        self.run(test)

    def test_repeat_penalty(self) -> None:
        """`repeat_penalty` divides the positive logits of tokens that occurred.

        If it fails: divide a positive logit by the penalty, multiply a negative one with it, once for each token.
        """

        async def test(model: LoadedModel) -> None:
            # Below 1 it is a reward.
            await self.check_letters(model, "aaaaaa", repeat_penalty=0.5)
            if await self.letters(model, repeat_penalty=1.5) == "aaaaaa":
                # The backend applies biases after the penalty, so a bias outweighs any of them.
                await self.check_letters(model, "aaaaaa", repeat_penalty=300.0)
                await self.check_repetition(model, repeat_penalty=1e3)
                await self.check_any_effect(model)
            else:
                await self.check_letters(model, "aaaaaa", repeat_penalty=1.1)
                await self.check_letters(model, "abaaaa", repeat_penalty=1.5)
                await self.check_letters(model, "ababab", repeat_penalty=1.5, repeat_last_n=1)
                await self.check_letters(model, "aaaaaa", repeat_penalty=1.5, repeat_last_n=0)
                await self.check_negative_logits(model)

        self.run(test)

    async def check_negative_logits(self, model: LoadedModel) -> None:
        """Make all logits negative by a bias for each token of a small vocabulary, and check the repeat penalty."""
        if not (self.obeys("repeat_penalty") and await self.takes_bias(model)):
            return
        whole = await self.with_logprobs(model, self.request(max_tokens=1), SMALL_VOCABULARY)
        tokens = token_ids(whole.logprobs[0].top) if whole is not None and whole.logprobs else []
        if not 2 < len(tokens) < SMALL_VOCABULARY or min(tokens) < 0:
            return
        (one, first), (other, second), *_ = await self.plain_tokens(model, 2)
        bias = {**dict.fromkeys(tokens, -10 * FULL), one: -FULL, other: -1.2 * FULL}
        sampling = replace(GREEDY, logit_bias=bias, repeat_penalty=1.5, repeat_last_n=64)
        text = (await collect(model, self.request(sampling=sampling, max_tokens=3))).text.replace(" ", "")
        assert text == first + second + first, f"a penalty of 1.5 for negative logits gives {text!r}"

    def test_penalties_look_at_the_last_tokens(self) -> None:
        """`repeat_last_n` is the number of recent tokens that penalties consider; 0: none; -1: all.

        If it fails: count the tokens of the output too, and take only the last ones.
        """

        async def test(model: LoadedModel) -> None:
            for last, expected in ((0, "aaaaaa"), (1, "ababab"), (-1, "abaaaa")):
                await self.check_letters(model, expected, presence_penalty=300.0, repeat_last_n=last)
            await self.check_letters(model, "aaaaaa", frequency_penalty=300.0, repeat_last_n=0)
            await self.check_letters(model, "ababab", frequency_penalty=300.0, repeat_last_n=1)
            if self.obeys("presence_penalty") and await self.takes_bias(model):
                (one, _), (other, second), *_ = await self.plain_tokens(model, 2)
                prompt = (*await self.tokens_of(model, self.prompt), one)
                sampling = replace(GREEDY, logit_bias={one: FULL, other: LESS}, presence_penalty=300.0)
                answer = await collect(model, self.request(prompt=prompt, sampling=sampling, max_tokens=1))
                assert answer.text.strip() == second, "penalties consider the tokens of the prompt too"

        self.run(test)

    async def letters(self, model: LoadedModel, **values: Any) -> str | None:  # noqa: ANN401 (fields of Sampling)
        """Return what six tokens become with a bias for a token a and a smaller one for b, written as a and b.

        None if the backend lacks one of the parameters, or biases.
        """
        if not (await self.takes_bias(model) and all(self.obeys(name) for name in values if name != "repeat_last_n")):
            return None
        (one, first), (other, second), *_ = await self.plain_tokens(model, 2)
        sampling = replace(GREEDY, logit_bias={one: FULL, other: LESS}, **{"repeat_last_n": 64} | values)
        text = (await collect(model, self.request(sampling=sampling, max_tokens=6))).text
        return text.replace(" ", "").replace(first, "\0").replace(second, "b").replace("\0", "a")

    async def check_letters(self, model: LoadedModel, expected: str, **values: Any) -> None:  # noqa: ANN401
        """Check what a penalty makes of two biases. Without biases, check that it has an effect at all."""
        found = await self.letters(model, **values)
        if found is not None:
            assert found == expected, f"{values} gives {found!r} for biases of 1000 (a) and 800 (b), not {expected!r}"
        elif all(self.obeys(name) for name in values if name != "repeat_last_n"):
            strong = {name: value if name == "repeat_last_n" else STRONG_BIAS for name, value in values.items()}
            await self.check_repetition(model, **strong)

    async def check_any_effect(self, model: LoadedModel) -> None:
        """Check that a strong repeat penalty changes at least one of several texts, if enough tokens occur again."""
        again, changed = 0, False
        for prompt in self.prompts(5):
            request = self.request(prompt=prompt)
            answer = await self.with_logprobs(model, request, 0)
            ids = token_ids(answer.logprobs) if answer is not None else []
            again += len(ids) - len(set(ids))
            strong = replace(request, sampling=replace(GREEDY, repeat_penalty=1e3, repeat_last_n=64))
            changed = changed or answer is None or (await collect(model, strong)).text != answer.text
        assert changed or again < 10 or not self.obeys("repeat_penalty"), "repeat_penalty has no effect"

    async def check_repetition(self, model: LoadedModel, **values: Any) -> None:  # noqa: ANN401
        """Check that a strong penalty changes a text that repeats a token, and that it does not if it looks at none."""
        for prompt in self.prompts(4):
            answer = await self.with_logprobs(model, self.request(prompt=prompt), 0)
            ids = token_ids(answer.logprobs) if answer is not None else []
            if answer is not None and any(one == other for one, other in itertools.pairwise(ids)):
                request = self.request(prompt=prompt, sampling=replace(GREEDY, **{"repeat_last_n": 64} | values))
                changed = (await collect(model, request)).text != answer.text
                assert changed is (values.get("repeat_last_n") != 0), f"{values}: did the text change? {changed}"

    # ---- Special tokens ----

    def test_the_end_token_ends_a_sequence(self) -> None:
        """The end token ends a sequence with the reason "stop", is counted, and is not in the text.

        If it fails: compare each sampled token with the end tokens of the vocabulary before its text is used.
        """

        async def test(model: LoadedModel) -> None:
            facts = model.facts
            if facts.eos_id < 0 or not await self.takes_bias(model):
                return
            sampling = replace(GREEDY, logit_bias={facts.eos_id: STRONG_BIAS})
            answer = await collect(model, self.request(sampling=sampling))
            assert (answer.text, answer.finish.reason, answer.finish.output_tokens) == ("", "stop", 1)
            shown = (facts.eos_text,)
            answer = await collect(model, self.request(sampling=sampling, preserved_tokens=shown, max_tokens=5))
            assert (answer.finish.reason, answer.finish.output_tokens) == ("stop", 1), (
                "a preserved end token ends it too"
            )

        self.run(test)

    def test_special_tokens_are_not_in_the_text(self) -> None:
        """Special tokens are left out of the text, except those in `preserved_tokens`.

        If it fails: yield nothing for a special token, unless its text is one of `request.preserved_tokens`.
        """

        async def test(model: LoadedModel) -> None:
            facts = model.facts
            special = [token for token in (facts.bos_id,) if token >= 0 and token != facts.eos_id]
            if not special or not await self.takes_bias(model):
                return
            sampling = replace(GREEDY, logit_bias={special[0]: STRONG_BIAS})
            hidden = await collect(model, self.request(sampling=sampling, max_tokens=3))
            assert facts.bos_text not in hidden.text, f"the special token is in {hidden.text!r}"
            assert hidden.text.strip() == "", f"a special token gives the text {hidden.text!r}"
            request = self.request(sampling=sampling, max_tokens=3, preserved_tokens=(facts.bos_text, "<other>"))
            shown = await collect(model, request)
            if hidden.finish.output_tokens == 3:
                assert shown.text.replace(" ", "") == facts.bos_text * 3, f"it is preserved, but gives {shown.text!r}"
            others = await collect(model, replace(request, preserved_tokens=("<other>",)))
            assert others.text == hidden.text, "only the tokens in preserved_tokens appear in the text"

        self.run(test)

    def test_what_is_not_declared_is_ignored_or_refused(self) -> None:
        """Parameters that only tune sampling are ignored by a backend that lacks them; logit_bias is refused.

        If it fails: do not raise for a temperature, a filter, a penalty or a seed. Raise UnsupportedError for a bias.
        """

        async def test(model: LoadedModel) -> None:
            odd = Sampling(temperature=0.0, top_k=3, top_p=0.5, min_p=0.1, typical_p=0.5, repeat_last_n=8,
                           repeat_penalty=1.2, presence_penalty=0.5, frequency_penalty=0.5, seed=5)  # fmt: skip
            await collect(model, self.request(sampling=odd, keep_tokens=2, shift=False))
            if not self.obeys("logit_bias"):
                error = await refused(model, self.request(sampling=replace(GREEDY, logit_bias={0: 1.0})))
                assert isinstance(error, BackendError), "a logit_bias was ignored; raise UnsupportedError"

        self.run(test)
