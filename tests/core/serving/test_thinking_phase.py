from tests.core.serving.asking import answered, parts, said

from puna.backend import Finish
from puna.messages import Think
from puna.serving.requests import OutputConstraint

JSON = OutputConstraint("json_object")


async def ask(serving, *args, **kwargs):
    return await answered(serving.chat(said(*args, **kwargs)))


class TestForm:
    """A demanded form applies to the answer, after any thinking, and always."""

    async def test_without_thinking_from_the_first_token(self, serving, backend):
        backend.play("{}")
        deltas, _ = await ask(serving, "talker", "a", constraint=JSON)
        assert parts(deltas) == ["{}"]
        assert backend.requests[0].constraint is not None

    async def test_thinking_is_free_and_is_followed_by_a_second_sequence(self, serving, backend):
        backend.play("<think>", "hm", "</think>", "free", 60)
        backend.play("{}", Finish(reason="stop", prompt_tokens=30, output_tokens=2))
        deltas, done = await ask(serving, "thinker", "a", constraint=JSON)
        assert parts(deltas) == ["/hm/", None, "{}"]
        assert [each.constraint is not None for each in backend.requests] == [False, True]
        assert backend.requests[1].prompt == "[user]a[assistant]<think>hm</think>"
        assert (done.usage.prompt_tokens, done.usage.output_tokens) == (30, 2)
        assert backend.running == 0

    async def test_an_answer_without_thinking_is_begun_anew(self, serving, backend):
        backend.play("free", 60)
        backend.play("{}")
        deltas, _ = await ask(serving, "thinker", "a", constraint=JSON)
        assert parts(deltas) == ["{}"]
        assert [each.constraint is not None for each in backend.requests] == [False, True]
        assert backend.requests[1].prompt == backend.requests[0].prompt

    async def test_thinking_that_ends_without_an_answer_is_gone_on_from(self, serving, backend):
        backend.play("<think>", "hm")
        backend.play("{}")
        deltas, _ = await ask(serving, "thinker", "a", constraint=JSON)
        assert parts(deltas) == ["/hm/", "{}"]

    async def test_thinking_that_takes_all_tokens_is_the_end(self, serving, backend):
        backend.play("<think>", "hm", "mm")
        deltas, done = await ask(serving, "thinker", "a", constraint=JSON, values={"num_predict": 2})
        assert (parts(deltas), done.reason, len(backend.requests)) == (["/hm/"], "length", 1)

    async def test_the_budget_bounds_the_thinking_alone(self, serving, backend):
        backend.play("<think>", "hm", "</think>", "free", 60)
        backend.play("{}")
        await ask(serving, "thinker", "a", constraint=JSON, thinking_budget=7)
        first, second = backend.requests
        assert (first.thinking_budget.max_tokens, first.constraint) == (7, None)
        assert (second.thinking_budget, second.constraint is not None) == (None, True)

    async def test_what_the_thinking_evaluated_was_not_cached(self, serving, backend):
        backend.play("<think>", "hm", "</think>", "free", 60)
        backend.play("{}", Finish(reason="stop", prompt_tokens=30, cached_prompt_tokens=29, output_tokens=2))
        _, done = await ask(serving, "thinker", "a", constraint=JSON)
        assert (done.usage.prompt_tokens, done.usage.cached_prompt_tokens) == (30, 0)

    async def test_thinking_off_means_at_once(self, serving, backend):
        backend.play("{}")
        await ask(serving, "thinker", "a", constraint=JSON, think=Think(on=False))
        assert backend.requests[0].constraint is not None
