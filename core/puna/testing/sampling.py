"""Contract tests of the sampling parameters: temperature, filters, seeds.

Theory. Log-probabilities say what the model's distribution is, so the tests know which tokens a filter must leave and
how often each must be drawn. All draws have fixed seeds. Where a frequency is compared, Chernoff's bound is used: a
right backend fails with a probability below 1e-9. Without log-probabilities only the extremes are compared with greedy
text.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from puna.backend import LoadedModel, Sampling, TokenLogprob
from puna.testing.answers import collect
from puna.testing.harness import PLAIN, ContractBase

EVIDENCE = 23.0
"""2 * exp(-23) is the bound on the probability of a false alarm in one comparison of a frequency."""
LOWEST = 6.0
"""Log-probabilities below this one's negative are taken for it, so that a rare token does not decide."""
SEEDS = range(30)
VISIBLE = 12
"""Number of most probable tokens that are looked at."""
HOT = (1.5, 5.0, 50.0, 1000.0)
"""Temperatures that are tried in turn until the model's answers vary."""


@dataclass(frozen=True)
class Position:
    """A place in a text, and the most probable tokens there, best first."""

    prompt: tuple[int, ...]
    top: tuple[TokenLogprob, ...]

    def gap(self, one: int, other: int) -> float:
        """Return the difference between the log-probabilities of two of the tokens, counted from 0."""
        return self.top[one].logprob - self.top[other].logprob

    def probability(self, index: int) -> float:
        """Return the probability of a token."""
        return math.exp(self.top[index].logprob)


class SamplingTests(ContractBase):
    """Temperature, top-k, top-p, min-p, typical-p and seeds."""

    temperature_first: ClassVar[bool] = False
    """Set it for an engine that cannot but divide by the temperature before it filters, against the contract's order.
    Then filters by probability are tested at temperature 1 alone."""

    def test_seeds_give_different_texts(self) -> None:
        """Different seeds give different texts at a high temperature, and so do requests without a seed.

        If it fails: seed a generator for each sequence from `sampling.seed`, of all 32 bits; None is a random seed.
        """

        async def test(model: LoadedModel) -> None:
            if not self.obeys("temperature"):
                return
            hot = await self.hot(model)
            if self.obeys("seed"):
                seeds = (0, 1, 2, 3, 1 << 8, 1 << 16, 1 << 24, 1 << 31, *range(100, 108))
                texts = [await self.text(model, replace(hot, seed=seed)) for seed in seeds]
                assert len(set(texts)) > len(seeds) // 2, f"{len(seeds)} seeds give {len(set(texts))} texts"
                high = [await self.text(model, replace(hot, seed=1 << bit)) for bit in range(8, 32, 3)]
                assert len(set(high)) > 1, "only the low bits of a seed have an effect"
            free = [await self.text(model, replace(hot, seed=None)) for _ in range(12)]
            assert len(set(free)) > 1, "without a seed, all answers are equal"

        self.run(test)

    def test_temperature_follows_the_distribution(self) -> None:
        """A temperature T draws each token with a probability proportional to exp(logprob / T).

        If it fails: divide the logits by the temperature, after all filters.
        """

        async def test(model: LoadedModel) -> None:
            places = await self.positions(model, 2, "temperature", "top_k")
            # A small gap is drawn at a low temperature, a large one at a high temperature.
            ordered = sorted(places, key=lambda place: place.gap(0, 1))
            for place, times in zip((ordered[0], ordered[-1]) if ordered else (), (2, 0.2), strict=False):
                temperature = place.gap(0, 1) / times
                sampling = replace(PLAIN, temperature=temperature, top_k=2)
                drawn = await self.draw(model, place, sampling, 300)
                expected = 1 / (1 + math.exp(-times))
                assert set(drawn) <= {0, 1}, f"top_k = 2 let other tokens through: {drawn}"
                check_frequency(drawn[0], 300, expected, f"the best token at temperature {temperature:.3f}")

        self.run(test)

    def test_temperature_one_is_the_models_distribution(self) -> None:
        """At temperature 1 without filters, each token is drawn as often as its log-probability says.

        If it fails: log-probabilities are natural logarithms of the softmax over the whole vocabulary. With top_k = 0,
        top_p = 1, min_p = 0 and typical_p = 1 nothing is filtered.
        """

        async def test(model: LoadedModel) -> None:
            if not (self.obeys("temperature") and self.obeys("top_k") and self.obeys("top_p")):
                return
            total, variance, largest = 0.0, 0.0, 1.0
            for seed in range(16):
                request = self.request(sampling=replace(PLAIN, seed=seed), max_tokens=80)
                answer = await self.with_logprobs(model, request, VISIBLE)
                if answer is None:
                    return
                for each in answer.logprobs:
                    # The score of a token is its log-probability; what a draw scores is compared with the mean. All
                    # tokens that are not listed share the lowest score.
                    scores = [max(other.logprob, -LOWEST) for other in each.top]
                    shares = [math.exp(other.logprob) for other in each.top]
                    scores.append(min(scores))
                    shares.append(max(1 - sum(shares), 0.0))
                    mean = sum(score * share for score, share in zip(scores, shares, strict=True))
                    square = sum(score * score * share for score, share in zip(scores, shares, strict=True))
                    ranks = (rank for rank, other in enumerate(each.top) if same_token(other, each))
                    total += scores[next(ranks, -1)] - mean
                    variance += square - mean * mean
                    largest = max(largest, -scores[-1])
            # The sum of the differences is a martingale, so Freedman's inequality bounds it.
            bound = total**2 / 2 / (variance + largest * abs(total) / 3 + 1e-9)
            assert bound < EVIDENCE, f"tokens are not drawn as their log-probabilities say: {total:.1f}, not about 0"

        self.run(test)

    def test_temperature_has_an_effect(self) -> None:
        """A high temperature gives texts that differ from the greedy one; a very low one gives the greedy one.

        If it fails: do not ignore `temperature`, or leave it out of the manifest's `sampling`.
        """

        async def test(model: LoadedModel) -> None:
            if not self.obeys("temperature"):
                return
            hot = await self.hot(model)
            first = (await collect(model, self.request(max_tokens=1))).text
            cold = replace(hot, temperature=1e-2)
            near = [
                await collect(model, self.request(sampling=replace(cold, seed=seed), max_tokens=1)) for seed in SEEDS
            ]
            texts = {answer.text for answer in near}
            place = await self.position(model, 2, "temperature")
            if place is not None and place.gap(0, 1) > 0.5:
                drawn = await self.draw(model, place, replace(PLAIN, temperature=1e-2), 30)
                assert drawn[0] == 30, f"temperature 0.01 drew other tokens than the best: {drawn}"
            assert first in texts or len(texts) > 1, (
                f"the greedy token {first!r} never came at temperature 0.01: {texts}"
            )

        self.run(test)

    def test_top_k_keeps_the_best_tokens(self) -> None:
        """`top_k` keeps that many of the most probable tokens; 1 is greedy, and 0 keeps all.

        If it fails: sort by logit before you cut, and treat 0 as no limit.
        """

        async def test(model: LoadedModel) -> None:
            if not self.obeys("top_k"):
                return
            await self.check_greedy(model, top_k=1)
            place = await self.position(model, 4, "top_k", "temperature")
            if place is not None:
                for keep in (2, 3):
                    # Hot enough for each of the kept tokens to have a probability of a quarter and more.
                    hot = max(place.gap(0, keep - 1), 1e-3) / 0.25
                    drawn = await self.draw(model, place, replace(PLAIN, temperature=hot, top_k=keep), 90)
                    assert set(drawn) == set(range(keep)), f"top_k = {keep} drew {drawn}"
                await self.check_no_cut(model, place)

        self.run(test)

    def test_top_p_keeps_the_smallest_set(self) -> None:
        """`top_p` keeps the smallest set of most probable tokens whose probabilities reach it, before temperature.

        If it fails: sum up the probabilities from the most probable token on, at temperature 1; divide by the
        temperature only afterwards.
        """

        async def test(model: LoadedModel) -> None:
            if not self.obeys("top_p"):
                return
            await self.check_greedy(model, top_p=1e-6)
            place = await self.position(model, 4, "top_p", "temperature", "top_k")
            if place is not None:
                for keep in (2, 3):
                    mass = sum(place.probability(index) for index in range(keep - 1))
                    enough = mass + place.probability(keep - 1) / 2
                    await self.check_kept(model, place, keep, top_p=enough)

        self.run(test)

    def test_min_p_keeps_tokens_near_the_best(self) -> None:
        """`min_p` keeps the tokens whose probability is at least that share of the best one's, before temperature.

        If it fails: compare with min_p times the largest probability, at temperature 1.
        """

        async def test(model: LoadedModel) -> None:
            if not self.obeys("min_p"):
                return
            await self.check_greedy(model, min_p=1.0)
            place = await self.position(model, 4, "min_p", "temperature", "top_k", "top_p")
            if place is not None:
                for keep in (2, 3):
                    between = math.exp(-(place.gap(0, keep - 1) + place.gap(0, keep)) / 2)
                    await self.check_kept(model, place, keep, min_p=between)

        self.run(test)

    def test_typical_p_keeps_typical_tokens(self) -> None:
        """A tiny `typical_p` keeps the one token whose surprise is closest to the entropy.

        If it fails: sort the tokens by |-log p - entropy|, and keep the first whose probabilities reach typical_p.
        """

        async def test(model: LoadedModel) -> None:
            if not (self.obeys("typical_p") and self.obeys("temperature")):
                return
            hot = await self.hot(model)
            only = {await self.text(model, replace(hot, typical_p=1e-9, seed=seed)) for seed in range(10)}
            assert len(only) == 1, "typical_p = 1e-9 leaves one token, so that all seeds give one text"
            place = await self.position(model, 4, "typical_p", "temperature", "top_k", "top_p")
            if place is not None and (typical := await self.most_typical(model, place)) is not None:
                sampling = replace(PLAIN, temperature=5.0, typical_p=1e-9)
                drawn = await self.draw(model, place, sampling, 10)
                assert set(drawn) == {typical}, f"typical_p = 1e-9 drew {drawn}; the typical token is number {typical}"

        self.run(test)

    def test_parameters_without_effect_change_nothing(self) -> None:
        """top_k = 0, top_p = 1, min_p = 0, typical_p = 1 and penalties of 1 and 0 filter nothing.

        If it fails: a parameter is taken for another one, or its neutral value is not neutral.
        """

        async def test(model: LoadedModel) -> None:
            if not (self.obeys("seed") and self.obeys("temperature")):
                return
            hot = await self.hot(model)
            neutral = replace(hot, repeat_last_n=-1, min_p=0.0, typical_p=1.0, repeat_penalty=1.0)
            for seed in range(4):
                one = await self.text(model, replace(hot, seed=seed))
                assert one == await self.text(model, replace(neutral, seed=seed))

        self.run(test)

    async def check_kept(self, model: LoadedModel, place: Position, keep: int, **values: float) -> None:
        """Check that a filter by probability keeps the first `keep` tokens and no other."""
        # Hot enough for each of the kept tokens to have a probability of a quarter and more.
        hot = 1.0 if self.temperature_first else max(place.gap(0, keep - 1), 1e-3) / 0.25
        sampling = replace(PLAIN, temperature=hot, **values)  # type: ignore[arg-type]  # names of fields
        drawn = await self.draw(model, place, sampling, 90)
        kept = set(range(keep))
        assert set(drawn) == kept or (self.temperature_first and set(drawn) <= kept), (
            f"{values} drew {drawn} by rank; it keeps {keep} tokens"
        )

    async def check_no_cut(self, model: LoadedModel, place: Position) -> None:
        """Check that top_k = 0 keeps more than 40 tokens, which is Ollama's default."""
        answer = await self.with_logprobs(model, self.request(prompt=place.prompt, max_tokens=1), 160)
        if answer is None or not answer.logprobs or len(answer.logprobs[0].top) < 160:
            return
        best = [each.token_id for each in answer.logprobs[0].top[:40]]
        # With all tokens nearly equally probable, most draws are none of the best 40.
        drawn = await self.draw(model, place, replace(PLAIN, temperature=1e5, top_k=0), 120)
        known = {*range(VISIBLE), *(VISIBLE + token for token in best), -1}
        rest = sum(count for key, count in drawn.items() if key not in known)
        assert rest > 6, f"top_k = 0 drew {rest} of 120 tokens that are not among the best 40"

    # ---- Draws ----

    async def hot(self, model: LoadedModel) -> Sampling:
        """Return sampling at a temperature at which answers vary. Raises AssertionError if there is none."""
        greedy = (await collect(model, self.request())).text
        for temperature in HOT:
            sampling = replace(PLAIN, temperature=temperature)
            texts = {await self.text(model, replace(sampling, seed=seed)) for seed in range(8)}
            if len(texts - {greedy}) > 4:
                return sampling
        raise AssertionError("eight seeds give the greedy text at every temperature, or one text; is it ignored?")

    async def text(self, model: LoadedModel, sampling: Sampling) -> str:
        """Return the text with these sampling parameters."""
        return (await collect(model, self.request(sampling=sampling))).text

    async def check_greedy(self, model: LoadedModel, **values: float) -> None:
        """Check that a filter which leaves one token gives the greedy text, however hot it is."""
        greedy = (await collect(model, self.request())).text
        sampling = replace(PLAIN, temperature=2.0, **values)  # type: ignore[arg-type]  # names of fields
        for seed in range(6):
            text = await self.text(model, replace(sampling, seed=seed))
            assert text == greedy, f"{values} leaves the most probable token alone, but the text is not the greedy one"

    async def position(self, model: LoadedModel, tokens: int, *parameters: str) -> Position | None:
        """Return a place at which the first `tokens` tokens are visible, distinct, probable, and not equally so.

        None if the backend lacks one of the parameters or log-probabilities, or if the model has no such place.
        """
        found = await self.positions(model, tokens, *parameters)
        return max(found, key=lambda place: spread(place, tokens), default=None)

    async def positions(self, model: LoadedModel, tokens: int, *parameters: str) -> list[Position]:
        """Return all such places of a few answers."""
        if not (model.facts.tokenizer and all(map(self.obeys, parameters))):
            return []
        found: list[Position] = []
        for prompt in (self.prompt, *self.prompts(3)):
            answer = await self.with_logprobs(model, self.request(prompt=prompt), VISIBLE)
            if answer is None:
                return []
            ids = await self.tokens_of(model, prompt)
            for each in answer.logprobs:
                place = Position(tuple(ids), each.top)
                if each.token_id >= 0 and spread(place, tokens) > 0 and await self.visible(model, each.top[:tokens]):
                    found.append(place)
                ids.append(each.token_id)
        return found

    async def visible(self, model: LoadedModel, tokens: Sequence[TokenLogprob]) -> bool:
        """Return whether each of the tokens adds text of its own, so that a draw can be told from the text."""
        raws = await model.detokenize([each.token_id for each in tokens], special=False)
        return all(raw.isascii() and raw.strip() for raw in raws) and len(set(raws)) == len(raws)

    async def draw(self, model: LoadedModel, place: Position, sampling: Sampling, count: int) -> Counter[int]:
        """Draw one token with each of `count` seeds. Return how often each came, by its rank; invisible ones are -1."""
        ranks = {each.token_id: rank for rank, each in enumerate(place.top)}
        drawn: Counter[int] = Counter()
        group = max(model.facts.parallel, 4)
        for begin in range(0, count, group):
            requests = [
                self.request(prompt=place.prompt, sampling=replace(sampling, seed=seed), max_tokens=1, top_logprobs=0)
                for seed in range(begin, min(begin + group, count))
            ]
            for answer in await asyncio.gather(*(collect(model, request) for request in requests)):
                ids = [each.token_id for each in answer.logprobs]
                # Tokens that are not among the most probable ones are told apart by their ids.
                drawn[ranks.get(ids[0], VISIBLE + ids[0]) if ids else -1] += 1
        return drawn

    async def most_typical(self, model: LoadedModel, place: Position) -> int | None:
        """Return the rank of the most typical token; None if it is not clear or the whole vocabulary is not known."""
        answer = await self.with_logprobs(model, self.request(prompt=place.prompt, max_tokens=1), 1 << 14)
        if answer is None or not answer.logprobs:
            return None
        logprobs = [each.logprob for each in answer.logprobs[0].top]
        if not math.isclose(sum(map(math.exp, logprobs)), 1, abs_tol=1e-4):
            return None
        entropy = -sum(math.exp(each) * each for each in logprobs)
        distances = [abs(-each - entropy) for each in logprobs]
        best, second = sorted(distances)[:2]
        rank = distances.index(best)
        return rank if second - best > 1e-2 and rank < VISIBLE else None


def same_token(one: TokenLogprob, other: TokenLogprob) -> bool:
    """Return whether two entries are of one token."""
    return one.raw == other.raw and one.token_id == other.token_id


def spread(place: Position, tokens: int) -> float:
    """Return how well a place suits tests that tell its first tokens apart; 0: not at all."""
    if len(place.top) <= tokens or place.probability(tokens - 1) < 1e-3:
        return 0.0
    # Neighbours of equal probability have no order, so a filter may keep either of them.
    smallest = min(place.gap(index, index + 1) for index in range(tokens))
    return min(smallest, 0.5) * place.probability(tokens - 1) if smallest > 0.01 else 0.0


def check_frequency(hits: int, count: int, probability: float, what: str) -> None:
    """Check by Chernoff's bound that an event of that probability may have come `hits` times."""
    observed = hits / count
    pairs = ((observed, probability), (1 - observed, 1 - probability))
    divergence = sum(one * math.log(one / max(other, 1e-300)) for one, other in pairs if one > 0)
    assert count * divergence < EVIDENCE, f"{what} came {hits} of {count} times; expected: {probability:.3f}"
