"""Contract tests of the thinking budget."""

from puna.backend import LoadedModel, ThinkingBudget, ThinkingMarkers
from puna.testing.answers import collect
from puna.testing.harness import ContractBase

END = "</qz7-thinking>"
"""The end of thinking. No model writes it by itself."""


class ThinkingTests(ContractBase):
    """A budget closes the thinking after exactly as many tokens. A backend that does not declare it gets none."""

    def test_the_budget_closes_the_thinking(self) -> None:
        """The text is the model's own up to the budget, then the closing text, then what the model writes behind it.

        If it fails: before each token, look whether `ThinkingTracker.due`, and append the tokens of its closing text
        instead of sampling. The tokens of the closing text are output and are no thinking.
        """

        async def test(model: LoadedModel) -> None:
            if not self.declares("thinking_budget") or self.capabilities() is None:
                return
            free = await collect(model, self.request(cache_salt=self.salt()))
            markers = ThinkingMarkers(open=True, ends=(END,), closings=(END,))
            for most in (0, 1, 5):
                budget = ThinkingBudget(max_tokens=most, markers=markers)
                most_tokens = self.max_tokens + most + len(END)
                answer = await collect(
                    model, self.request(thinking_budget=budget, max_tokens=most_tokens, cache_salt=self.salt())
                )
                before, closed, _ = answer.text.partition(END)
                assert closed, f"the closing text is missing in {answer.text!r}"
                assert free.text.startswith(before), f"{before!r} is not what the model writes by itself: {free.text!r}"
                spent = answer.finish.thinking_tokens
                assert spent == most, f"thinking_tokens is {spent} with a budget of {most}"
                assert not (most == 0 and before), f"{before!r} was written without a budget for it"

        self.run(test)

    def test_a_budget_that_is_not_spent_changes_nothing(self) -> None:
        """A budget that is larger than the answer gives the text that the model writes without one.

        If it fails: count a token as thinking only if the model has sampled it between the markers.
        """

        async def test(model: LoadedModel) -> None:
            if not self.declares("thinking_budget") or self.capabilities() is None:
                return
            markers = ThinkingMarkers(starts=("<qz7-thinking>",), ends=(END,), closings=(END,))
            budget = ThinkingBudget(max_tokens=0, markers=markers)
            free = await collect(model, self.request(cache_salt=self.salt()))
            within = await collect(model, self.request(thinking_budget=budget, cache_salt=self.salt()))
            assert (within.text, within.finish.thinking_tokens) == (free.text, 0)

        self.run(test)
