"""Contract tests of the order in which the sampling parameters apply.

Theory. A filter sees what the filters before it have left, and probabilities are those among the tokens that are left.
So a top-p between the probability of the best token and its share of the best two keeps one token after a top-k of two,
and two tokens before it.
"""

import math
from dataclasses import replace

from puna.backend import LoadedModel, Sampling
from puna.testing.answers import collect
from puna.testing.harness import GREEDY, PLAIN, STRONG_BIAS
from puna.testing.sampling import Position, SamplingTests

DRAWS = 60
MARGIN = 0.02
"""Distance of probabilities that computations in single precision cannot confuse."""


class OrderTests(SamplingTests):
    """Penalties, top-k, top-p, min-p, temperature: in this order."""

    def test_filters_apply_in_the_order_of_the_contract(self) -> None:
        """top_k comes before top_p, and top_p before min_p. Each sees the probabilities among the tokens that are left.

        If it fails: filter in the order of the contract, and normalise again before top_p.
        """

        async def test(model: LoadedModel) -> None:
            places = await self.positions(model, 3, "temperature", "top_k", "top_p", "min_p")
            place = max(places, key=margin, default=None)
            if place is None or margin(place) < MARGIN or self.temperature_first:
                return
            between = threshold(place)
            # Hot enough for the second token to have a probability of 0.4 and more if both are kept.
            hot = replace(PLAIN, temperature=max(place.gap(0, 1), 1e-3) / 0.25, top_p=between)
            ranks = await self.kept(model, place, replace(hot, top_k=2))
            assert ranks == {0}, f"top_k = 2 and then top_p = {between:.3f} leave the best token, but gave {ranks}"
            both = math.exp(-(place.gap(0, 1) + place.gap(0, 2)) / 2)
            ranks = await self.kept(model, place, replace(hot, min_p=both))
            assert ranks == {0, 1}, f"top_p = {between:.3f} and then min_p = {both:.3f} leave two, but gave {ranks}"

        self.run(test)

    async def kept(self, model: LoadedModel, place: Position, sampling: Sampling) -> set[int]:
        """Return the ranks of the tokens that are drawn."""
        return set(await self.draw(model, place, sampling, DRAWS))

    def test_penalties_apply_before_filters(self) -> None:
        """Penalties change which tokens a filter keeps, at any temperature.

        If it fails: apply penalties to all logits before top_k.
        """

        async def test(model: LoadedModel) -> None:
            needed = ("presence_penalty", "top_k", "temperature")
            if not (all(map(self.obeys, needed)) and await self.takes_bias(model)):
                return
            (one, first), (other, second), *_ = await self.plain_tokens(model, 2)
            bias = {one: STRONG_BIAS, other: 0.8 * STRONG_BIAS}
            greedy = replace(GREEDY, logit_bias=bias, presence_penalty=0.3 * STRONG_BIAS)
            for sampling in (greedy, replace(greedy, temperature=1.0, top_k=1, top_p=1.0, seed=1)):
                answer = await collect(model, self.request(sampling=sampling, max_tokens=2))
                text = answer.text.replace(" ", "")
                assert text == first + second, f"{sampling} gives {answer.text!r}, not {first + second!r}"

        self.run(test)

    def test_each_draw_is_a_new_one(self) -> None:
        """A seed begins a row of random numbers, and each token takes the next one.

        If it fails: make the generator once for each sequence, not for each token.
        """

        async def test(model: LoadedModel) -> None:
            needed = ("seed", "top_k", "temperature")
            if not (all(map(self.obeys, needed)) and await self.takes_bias(model)):
                return
            (one, text), (other, _), *_ = await self.plain_tokens(model, 2)
            # Two tokens of nearly equal probability.
            bias = {one: STRONG_BIAS, other: 0.8 * STRONG_BIAS}
            even = replace(PLAIN, temperature=1e5, top_k=2, logit_bias=bias)
            drawn = [
                (await collect(model, self.request(sampling=replace(even, seed=seed)))).text.replace(" ", "")
                for seed in range(4)
            ]
            mixed = [written for written in drawn if written.replace(text, "") not in ("", written)]
            assert mixed, f"all draws of a sequence are equal: {drawn}"

        self.run(test)


def threshold(place: Position) -> float:
    """Return a top-p between the probability of the best token and its share of the best two."""
    best = place.probability(0)
    return best + (best / (best + place.probability(1)) - best) / 3


def margin(place: Position) -> float:
    """Return how far the threshold is from the sums of probabilities with which it is compared."""
    best, between = place.probability(0), threshold(place)
    # The third token is left out by a min-p between its probability and that of the second.
    return min(between - best, best + place.probability(1) - between, place.gap(1, 2))
