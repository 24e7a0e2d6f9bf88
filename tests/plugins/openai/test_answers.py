"""What an upstream streams becomes the deltas of an answer."""

import pytest

from puna.backend import ChatDelta, ChatToolCall, Finish, TokenLogprob


async def deltas(load, run, ask, model, **fields):
    *events, finish = await run(await load(model), ask(**fields))
    assert isinstance(finish, Finish)
    return events, finish


async def test_text_and_counts(load, run, ask):
    events, finish = await deltas(load, run, ask, "hello")
    assert events == [ChatDelta(content="Hel"), ChatDelta(content="lo")]
    assert finish.reason == "stop"
    assert (finish.prompt_tokens, finish.cached_prompt_tokens, finish.output_tokens) == (11, 5, 3)
    assert finish.prompt_eval_ns > 0
    assert finish.eval_ns > 0


async def test_the_limit_and_a_stop_string_are_told_apart(load, run, ask):
    assert (await deltas(load, run, ask, "long"))[1].reason == "length"
    assert (await deltas(load, run, ask, "stopped", stop=("\n\n",)))[1].stop_sequence == "\n\n"
    # It is a stop string of the upstream's own.
    assert (await deltas(load, run, ask, "stopped"))[1].stop_sequence == ""


async def test_without_counts_the_deltas_are_counted(load, run, ask):
    _, finish = await deltas(load, run, ask, "no-usage")
    assert (finish.prompt_tokens, finish.output_tokens) == (0, 2)


@pytest.mark.parametrize("model", ["reasoning", "reasoning_content"])
async def test_reasoning_is_thinking(load, run, ask, model):
    events, _ = await deltas(load, run, ask, model)
    assert events == [ChatDelta(thinking="Hm."), ChatDelta(content="Yes.")]


async def test_a_refusal_is_content(load, run, ask):
    assert (await deltas(load, run, ask, "refusal"))[0] == [ChatDelta(content="I cannot.")]


async def test_fragments_of_calls_are_put_together(load, run, ask):
    events, _ = await deltas(load, run, ask, "tools")
    assert events == [
        ChatDelta(tool_calls=(ChatToolCall(name="weather", arguments_json='{"city": "Paris"}', id="call_a"),)),
        ChatDelta(tool_calls=(ChatToolCall(name="time", arguments_json="{}", id="call_b"),)),
    ]


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        ("tools-repeated-name", ['{"a":1}']),
        ("tools-without-index", ['{"a": 1}', '{"a": 2}']),
        ("tools-object", ['{"a": 1}']),
        ("tools-no-arguments", ["{}"]),
    ],
)
async def test_calls_of_other_servers(load, run, ask, model, arguments):
    events, _ = await deltas(load, run, ask, model)
    calls = [call for event in events for call in event.tool_calls]
    assert [call.arguments_json for call in calls] == arguments
    assert {call.name for call in calls} == {"f"}


async def test_logprobs_have_the_bytes_of_tokens(load, run, ask):
    events, _ = await deltas(load, run, ask, "logprobs", top_logprobs=2)
    first, second = events
    assert first.logprobs == (TokenLogprob(b"\xc3", -1, -0.5), TokenLogprob(b"\xa9", -1, -0.25))
    assert second.logprobs[0].top == (TokenLogprob(b"!", -1, -1.5), TokenLogprob(b"?", -1, -2.0))
