"""Contract tests of log-probabilities."""

import math
from dataclasses import replace

from puna.backend import LoadedModel, Sampling, TokenLogprob
from puna.testing.answers import Answer, collect, refused
from puna.testing.harness import GREEDY, PLAIN, ContractBase, token_ids

TOLERANCE = 1e-3
"""How much two computations of a log-probability may differ."""


class LogprobTests(ContractBase):
    """Log-probabilities: for every token, natural logarithms, of the model's own distribution."""

    def test_every_token_has_a_log_probability(self) -> None:
        """Each token of the text has a log-probability, in order, and the bytes of all of them give the text.

        If it fails: add an entry for every sampled token, and let it wait with the text that is held back. A backend
        without log-probabilities raises UnsupportedError.
        """

        async def test(model: LoadedModel) -> None:
            deltas = (await collect(model, self.request())).deltas
            # Text that ends like the beginning of a stop string is held back, and its tokens with it.
            held = tuple({f"{delta.text}\0" for delta in deltas[2:12:4]})
            plainly = self.request()
            hot = self.request(sampling=replace(PLAIN, seed=5))
            for request in (plainly, self.request(stop=held), hot):
                answer = await self.with_logprobs(model, request, 3)
                if answer is None:
                    self.check_may_lack("logprobs")
                    return
                plain = await collect(model, request)
                assert answer.text == plain.text, "log-probabilities change the text"
                count, finish = len(answer.logprobs), answer.finish
                assert finish.output_tokens == plain.finish.output_tokens
                assert count <= finish.output_tokens, "there are more log-probabilities than tokens"
                # The tokens of text that is lost at the limit, and the end token, need not have one.
                raw = await self.output_bytes(model, answer.logprobs)
                assert raw.decode("utf-8", "replace").startswith(answer.text), f"{raw!r} became {answer.text!r}"
                if request is plainly:
                    await self.check_missing(model, answer)

        self.run(test)

    async def check_missing(self, model: LoadedModel, answer: Answer) -> None:
        """Check that only the end token, and tokens of half a character at the limit, have no log-probability."""
        missing = answer.finish.output_tokens - len(answer.logprobs) - (answer.finish.reason == "stop")
        assert missing <= 3, f"{len(answer.logprobs)} log-probabilities for {answer.finish.output_tokens} tokens"
        if missing > 0:
            longer = await collect(model, self.request(max_tokens=self.max_tokens + 4))
            following = longer.text[len(answer.text) :][:1]
            assert not following.isascii(), f"{missing} tokens have no log-probability"

    def test_log_probabilities_come_with_their_text(self) -> None:
        """A delta carries the log-probabilities of its own tokens.

        If it fails: put each entry into the delta that carries the token's last character.
        """

        async def test(model: LoadedModel) -> None:
            deltas = (await collect(model, self.request())).deltas
            # Text that ends like the beginning of a stop string is held back, and its tokens with it.
            held = tuple({f"{delta.text}\0" for delta in deltas[2:12:4]})
            for request in (self.request(), self.request(stop=held)):
                answer = await self.with_logprobs(model, request, 0)
                for delta in answer.deltas if answer is not None else ():
                    raw = await self.output_bytes(model, delta.logprobs)
                    assert raw.decode("utf-8", "replace") == delta.text, f"{delta.text!r} came with the tokens {raw!r}"
            await self.check_stopped(model, [delta.text for delta in deltas])

        self.run(test)

    async def check_stopped(self, model: LoadedModel, texts: list[str]) -> None:
        """Check that the text before a stop string, which begins where a token does, has log-probabilities."""
        for count in range(2, min(len(texts) - 3, 12), 3):
            before, stop = "".join(texts[:count]), "".join(texts[count : count + 3])
            if stop in before:
                continue
            # The last token before the stop string is held back until the stop string is complete.
            stops = (f"{texts[count - 1]}{stop}\0", stop)
            answer = await self.with_logprobs(model, self.request(stop=stops), 0)
            if answer is not None and answer.text == before:
                raw = await self.output_bytes(model, answer.logprobs)
                assert raw.startswith(before.encode()), f"{before!r}, before a stop string, came with {raw!r}"

    def test_entries_describe_their_tokens(self) -> None:
        """An entry has the token's id and bytes, and its alternatives are sorted, distinct, and as many as asked for.

        If it fails: sort the alternatives by log-probability, best first, and let `raw` be the bytes of `token_id`.
        """

        async def test(model: LoadedModel) -> None:
            for top in (0, 1, 3, 8):
                answer = await self.with_logprobs(model, self.request(), top)
                if answer is None:
                    return
                for each in answer.logprobs:
                    assert len(each.top) == top, f"{len(each.top)} alternatives instead of {top}"
                    await self.check_entry(model, each)

        self.run(test)

    async def check_entry(self, model: LoadedModel, each: TokenLogprob) -> None:
        """Check an entry by itself and against its alternatives."""
        entries = (each, *each.top)
        for entry in entries:
            assert math.isfinite(entry.logprob), f"{entry.logprob} is no log-probability"
            assert entry.logprob <= TOLERANCE, f"a log-probability of {entry.logprob} is a probability above 1"
        values = [entry.logprob for entry in each.top]
        assert values == sorted(values, reverse=True), "the most probable alternative comes first"
        assert sum(map(math.exp, values)) <= 1 + TOLERANCE, "the probabilities of the alternatives exceed 1"
        if min(token_ids(entries)) >= 0:
            assert len(set(token_ids(each.top))) == len(each.top), "an alternative is there twice"
            for other in each.top:
                if other.token_id == each.token_id:
                    assert abs(other.logprob - each.logprob) < TOLERANCE, "the token differs from itself in `top`"
            if model.facts.tokenizer:
                ids = token_ids(entries)
                shown = await model.detokenize(ids, special=True)
                hidden = await model.detokenize(ids, special=False)
                for entry, *raws in zip(entries, shown, hidden, strict=True):
                    assert entry.raw in raws, f"token {entry.token_id} is {raws[0]!r}, not {entry.raw!r}"
        else:
            assert len({entry.raw for entry in each.top}) == len(each.top), "an alternative is there twice"

    def test_the_greedy_token_is_the_most_probable(self) -> None:
        """Greedy decoding takes the first alternative, and the entry of a token has that token's log-probability.

        If it fails: take log-probability and token from the same logits.
        """

        async def test(model: LoadedModel) -> None:
            answer = await self.with_logprobs(model, self.request(), 3)
            if answer is None or not self.obeys("temperature"):
                return
            for each in answer.logprobs:
                best = each.top[0]
                assert abs(each.logprob - best.logprob) < TOLERANCE, "a greedy token is not the most probable one"
                assert each.raw == best.raw or each.top[1].logprob > best.logprob - TOLERANCE

        self.run(test)

    def test_log_probabilities_are_those_of_the_model(self) -> None:
        """Temperature, filters and seeds do not change log-probabilities: they come before all of them.

        If it fails: compute the log-softmax of the logits before the samplers change them.
        """

        async def test(model: LoadedModel) -> None:
            request = self.request(max_tokens=1)
            for prompt in self.prompts(3):
                seen = []
                changes = (GREEDY, Sampling(temperature=0.4, seed=1), Sampling(temperature=2.5, top_k=0, seed=2),
                           Sampling(temperature=1.0, top_k=1, seed=3), Sampling(temperature=1.0, top_p=0.01, seed=3),
                           Sampling(temperature=1.0, top_k=0, top_p=1.0, min_p=0.9, seed=4))  # fmt: skip
                for sampling in changes:
                    answer = await self.with_logprobs(model, replace(request, prompt=prompt, sampling=sampling), 5)
                    if answer is None:
                        return
                    seen += [(sampling, each.top) for each in answer.logprobs]
                for sampling, top in seen[1:]:
                    for one, other in zip(seen[0][1], top, strict=True):
                        assert abs(one.logprob - other.logprob) < TOLERANCE, f"{sampling} changes log-probabilities"

        self.run(test)

    def test_a_tokens_entry_is_its_own(self) -> None:
        """A token that is drawn at a high temperature has its own log-probability, not that of the best one.

        If it fails: look the log-probability up by the id of the sampled token.
        """

        async def test(model: LoadedModel) -> None:
            if not (self.obeys("temperature") and self.obeys("seed")):
                return
            wide = await self.with_logprobs(model, self.request(max_tokens=1), 20)
            if wide is None or not wide.logprobs or not wide.deltas:
                return
            known = {each.raw: each.logprob for each in wide.logprobs[0].top}
            for seed in range(20):
                sampling = Sampling(temperature=1.5, top_k=20, top_p=1.0, seed=seed)
                answer = await self.with_logprobs(model, self.request(sampling=sampling, max_tokens=1), 0)
                for each in answer.logprobs if answer is not None else ():
                    if each.raw in known and list(known).count(each.raw) == 1 and each.raw:
                        assert abs(each.logprob - known[each.raw]) < TOLERANCE, f"{each} has another token's value"

        self.run(test)

    def test_probabilities_add_up(self) -> None:
        """The probabilities of a whole vocabulary add up to 1.

        If it fails: log-probabilities are natural logarithms, normalised over all tokens. An engine that gives fewer
        alternatives than asked for is tested by the frequency of its draws instead.
        """

        async def test(model: LoadedModel) -> None:
            answer = await self.with_logprobs(model, self.request(max_tokens=2), 1 << 17)
            if answer is None or not self.complete_vocabularies(model):
                return
            for each in answer.logprobs:
                if len(each.top) > 200:
                    total = sum(math.exp(other.logprob) for other in each.top)
                    assert abs(total - 1) < 1e-2, f"the probabilities of {len(each.top)} tokens add up to {total}"
                    ids = set(token_ids(each.top))
                    if max(ids) < len(ids) + 16 and min(ids) >= 0 and model.facts.eos_id >= 0:
                        assert model.facts.eos_id in ids, "the end token is missing among the alternatives"

        self.run(test)

    def complete_vocabularies(self, model: LoadedModel) -> bool:
        """Return whether the backend gives as many alternatives as asked for. Override it if the engine has a limit."""
        return model.facts.tokenizer

    def test_an_answer_can_be_continued_by_its_tokens(self) -> None:
        """The prompt and the first tokens of an answer, given as token ids, are continued with its other tokens.

        If it fails: the sampled tokens must join the context exactly as if they had been in the prompt.
        """

        async def test(model: LoadedModel) -> None:
            answer = await self.with_logprobs(model, self.request(max_tokens=12), 0)
            if answer is None or not model.facts.tokenizer or min(token_ids(answer.logprobs), default=-1) < 0:
                return
            ids = token_ids(answer.logprobs)
            prompt = await self.tokens_of(model, self.prompt)
            for done in range(1, len(ids)):
                request = self.request(prompt=(*prompt, *ids[:done]), max_tokens=1, top_logprobs=0)
                # What the first answer has left in the cache is of no help.
                request = replace(request, cache_salt=self.salt())
                following = token_ids((await collect(model, request)).logprobs)
                assert following in ([], [ids[done]]), f"after {done} tokens follows {following}, not {ids[done]}"

        self.run(test)

    def test_undeclared_log_probabilities_are_refused(self) -> None:
        """A backend never leaves out log-probabilities that were asked for.

        If it fails: raise UnsupportedError for a request with `top_logprobs`, before any delta.
        """

        async def test(model: LoadedModel) -> None:
            error = await refused(model, self.request(top_logprobs=1))
            if error is None:
                answer = await collect(model, self.request(top_logprobs=1))
                assert answer.logprobs, "log-probabilities were asked for and left out"

        self.run(test)
