"""One model at an upstream."""

from dataclasses import replace

import pytest

from puna.backend import Finish, UnsupportedError


async def test_a_prompt_alone_is_refused(load, run, ask):
    with pytest.raises(UnsupportedError, match="conversations"):
        await run(await load("hello"), replace(ask(), chat=None, prompt="hi"))


async def test_no_tokens_at_all(load, run, ask, front):
    events = await run(await load("hello"), ask(max_tokens=0))
    assert events == [Finish(reason="length")]
    assert front.requests == []


async def test_logprobs_that_an_upstream_does_not_send(load, run, ask):
    with pytest.raises(UnsupportedError, match="returns no log-probabilities"):
        await run(await load("hello"), ask(top_logprobs=1))
