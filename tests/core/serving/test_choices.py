"""Several answers to one request."""

import asyncio
from contextlib import aclosing

import pytest
from tests.core.serving.asking import WEATHER, answered, prompted, said, until

from puna import errors
from puna.backend import BackendError
from puna.serving.answers import ChoiceDone, Delta, Done, Usage
from puna.serving.choices import answers
from puna.serving.requests import OutputConstraint


async def collected(events):
    """Return the texts, the thinking, the ends and the last event."""
    texts, thinking, ends = {}, {}, []
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Delta):
                texts[event.choice] = texts.get(event.choice, "") + event.text
                thinking[event.choice] = thinking.get(event.choice, "") + event.thinking
            elif isinstance(event, ChoiceDone):
                ends.append(event)
            elif isinstance(event, Done):
                return texts, thinking, ends, event
    raise AssertionError("no end")


async def test_each_answer_has_its_index_and_its_end(serving, backend):
    for text in ("a", "b", "c"):
        backend.play(text, text)
    texts, _, ends, done = await collected(serving.generate(prompted("plain", "xyz", n=3)))
    assert texts == {0: "aa", 1: "bb", 2: "cc"}
    assert sorted((end.choice, end.reason) for end in ends) == [(0, "stop"), (1, "stop"), (2, "stop")]
    assert [end.choice for end in done.choices] == [0, 1, 2]
    assert (done.usage.prompt_tokens, done.usage.output_tokens) == (3, 9)
    # Which tokens a later request would go on from is open.
    assert done.context is None


async def test_seeds_count_up_from_the_requests_own(serving, backend):
    await collected(serving.chat(said("talker", "a", n=3, values={"seed": 7})))
    assert [each.sampling.seed for each in backend.requests] == [7, 8, 9]
    assert len({each.prompt for each in backend.requests}) == 1


async def test_the_largest_seed_wraps(serving, backend):
    await collected(serving.generate(prompted("plain", n=2, values={"seed": 2**32 - 1})))
    assert [each.sampling.seed for each in backend.requests] == [2**32 - 1, 0]


async def test_without_a_seed_every_answer_is_random(serving, backend):
    await collected(serving.generate(prompted("plain", n=2)))
    assert [each.sampling.seed for each in backend.requests] == [None, None]


async def test_one_answer_is_as_without_n(serving, backend):
    backend.play("a")
    deltas, done = await answered(serving.generate(prompted("plain", "x", n=1)))
    assert ([each.choice for each in deltas], done.choices) == ([0], ())
    assert done.context is not None


@pytest.mark.parametrize("model", ["thinker", "reasoner"])
async def test_every_answer_is_parsed_for_itself(serving, backend, model):
    opening = [] if model == "reasoner" else ["<think>"]
    backend.play(*opening, "one", "</think>", "\n", "1")
    backend.play(*opening, "two", "</think>", "\n", "2")
    texts, thinking, _, _ = await collected(serving.chat(said(model, "a", n=2)))
    assert (texts, thinking) == ({0: "1", 1: "2"}, {0: "one", 1: "two"})


async def test_calls_are_noted_for_the_answer_that_makes_them(serving, backend):
    backend.play('<tool_call>{"name": "get_weather", "arguments": {}}</tool_call>')
    backend.play("none")
    _, _, _, done = await collected(serving.chat(said("tools", "a", n=2, tools=(WEATHER,))))
    assert [end.called for end in done.choices] == [True, False]


async def test_structured_output_of_several_answers(serving, backend):
    for text in ("[1]", "[2]"):
        backend.play("<think>", text, 0.2, "</think>", "x", 60)
    backend.play('{"a":1}')
    backend.play('{"a":2}')
    request = said("thinker", "a", n=2, constraint=OutputConstraint("json_object"))
    texts, thinking, _, done = await collected(serving.chat(request))
    assert sorted(texts.values()) == ['{"a":1}', '{"a":2}']
    assert thinking == {0: "[1]", 1: "[2]"}
    assert len(done.choices) == 2


async def test_the_first_failure_ends_all(serving, backend):
    backend.play("a", 60)
    backend.play("b", BackendError("broken"))
    with pytest.raises(errors.BackendFailedError, match="broken"):
        await collected(serving.generate(prompted("plain", n=2)))
    assert backend.running == 0


async def test_closing_ends_all(serving, backend):
    for _ in range(3):
        backend.play("a", 60)
    events = serving.generate(prompted("plain", n=3))
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Delta):
                break
        await until(lambda: backend.running == 3)
    assert backend.running == 0


async def test_more_answers_than_slots_follow_one_another(serving, backend):
    backend.facts = {"parallel": 1}
    for text in ("a", "b", "c"):
        backend.play(text)
    texts, _, _, _ = await collected(serving.generate(prompted("plain", n=3)))
    assert texts == {0: "a", 1: "b", 2: "c"}


async def test_a_load_ignores_the_number(serving):
    _, done = await answered(serving.generate(prompted("plain", "", n=3)))
    assert (done.reason, done.choices) == ("load", ())


def test_counts_of_the_prompt_are_counted_once():
    async def make(choice):
        usage = Usage(prompt_tokens=10, cached_prompt_tokens=9 if choice else 2, output_tokens=choice + 1)
        yield Done(reason="length" if choice else "stop", usage=usage)

    _, _, _, done = asyncio.run(collected(answers(make, 3)))
    assert done.usage == Usage(prompt_tokens=10, cached_prompt_tokens=2, output_tokens=6)
    assert (done.reason, [end.reason for end in done.choices]) == ("stop", ["stop", "length", "length"])


async def test_a_reader_that_waits_bounds_what_is_read_ahead():
    made = 0

    async def make(choice):
        nonlocal made
        for _ in range(10_000):
            made += 1
            yield Delta(text="x")

    async with aclosing(answers(make, 2)) as events:
        await anext(events)
        for _ in range(1000):
            await asyncio.sleep(0)
        assert made < 100
