"""The same with the real engine, in a host of its own, on models whose weights make them lookup tables."""

import asyncio
import json
import os
import signal
from contextlib import aclosing

import pytest
from tests.core.serving.asking import WEATHER, answered, parts, prompted, said

from puna import errors
from puna.messages import Tool
from puna.plugins import Registry
from puna.runtime.pool import ModelPool
from puna.sandbox.sandbox import Sandbox
from puna.serving.answers import Delta
from puna.serving.core import Serving
from puna.serving.requests import EmbedRequest, OutputConstraint, RequestOptions, ToolChoice


@pytest.fixture
async def serving(stocked, settings):
    """One server for each test, and one host for each model in it."""
    async with ModelPool(Registry.discover(), settings) as pool, Sandbox(settings.limits) as sandbox:
        yield Serving(stocked, pool, settings, sandbox=sandbox)


async def test_completing(serving):
    deltas, done = await answered(serving.generate(prompted("plain", "go a")))
    assert parts(deltas) == ["Hello", ",", " world", "!"]
    assert (done.reason, done.usage.prompt_tokens, done.usage.output_tokens) == ("stop", 4, 5)
    assert list(done.context) == [106, 114, 35, 100, 75, 104, 111, 111, 114, 47, 35, 122, 114, 117, 111, 103, 36]


async def test_thinking_then_a_form(serving):
    request = said("thinker", "i", constraint=OutputConstraint("json_object"), values={"num_predict": 60})
    deltas, done = await answered(serving.chat(request))
    assert "".join(each.thinking for each in deltas) == "Let me see.\n"
    if done.reason == "stop":
        assert isinstance(json.loads("".join(each.text for each in deltas)), dict)


async def test_several_answers_share_one_prefill(serving):
    prompt = "a common beginning of many words " * 8
    _, done = await answered(serving.generate(prompted("plain", prompt, n=3, values={"num_predict": 4, "seed": 1})))
    usages = [end.usage for end in done.choices]
    assert [each.prompt_tokens for each in usages] == [len(prompt)] * 3
    # One evaluates the prompt, the others the last token, whose logits they sample from.
    assert sorted(each.prompt_tokens - each.cached_prompt_tokens for each in usages) == [1, 1, len(prompt)]
    assert done.usage.cached_prompt_tokens == 0


async def test_a_form_that_cannot_be_enforced(serving):
    request = prompted(
        "plain", "e", constraint=OutputConstraint("json_schema", '{"type": "array", "uniqueItems": true}')
    )
    with pytest.raises(errors.UnsupportedConstraintError, match="uniqueItems"):
        await answered(serving.generate(request))


@pytest.mark.parametrize("values", [{"num_batch": 64}, {"num_ctx": 64}])
async def test_a_text_to_embed_is_cut_to_the_batch(serving, values):
    def request(**fields):
        options = RequestOptions(values=values)
        return EmbedRequest(model="embedder", inputs=("hello " * 100,), options=options, **fields)

    assert (await serving.embed(request(truncate=True))).token_counts[0] <= 64
    with pytest.raises(errors.InputTooLongError):
        await serving.embed(request(truncate=False))


@pytest.mark.parametrize("model", ["native", "variants"])
async def test_native_calls(serving, model):
    _, done = await answered(serving.chat(said(model, "g", tools=(WEATHER,))))
    (call,) = done.delta.tool_calls
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Paris", "days": 2})


@pytest.mark.parametrize("model", ["tools", "native"])
async def test_a_call_that_must_come(serving, model):
    """The model would greet instead."""
    request = said(model, "a", tools=(WEATHER,), tool_choice=ToolChoice("required"), values={"num_predict": 60})
    deltas, done = await answered(serving.chat(request))
    calls = [call for delta in (*deltas, done.delta) for call in delta.tool_calls]
    assert done.reason == "length" or [call.name for call in calls] == ["get_weather"]
    text = "".join(delta.text for delta in (*deltas, done.delta))
    assert "Hello" not in text


SETTING = Tool(
    name="set",
    parameters='{"type":"object","properties":{"unit":{"type":"string","enum":["c","f"]},"on":{"type":"boolean"},'
    '"levels":{"type":"array","items":{"enum":[1,2]}}},"required":["unit","on"]}',
)


@pytest.mark.parametrize("model", ["harmony", "gemma4", "marked", "functiongemma", "olmo3", "glimmer"])
async def test_a_call_that_must_come_in_a_notation_of_its_own(serving, model):
    request = said(model, "a", tools=(SETTING,), tool_choice=ToolChoice("required"), values={"num_predict": 600})
    deltas, done = await answered(serving.chat(request))
    (call,) = [call for delta in (*deltas, done.delta) for call in delta.tool_calls]
    arguments = json.loads(call.arguments)
    assert (done.reason, call.name, arguments["unit"] in ("c", "f"), arguments["on"] in (True, False)) == (
        "stop", "set", True, True,
    )  # fmt: skip
    assert "".join(delta.text for delta in (*deltas, done.delta)) == ""


WHOLE = ("gemma4", "marked", "functiongemma", "olmo3")
"""Models whose notation of calls has one delta for each call."""


@pytest.mark.parametrize("model", ["native", "harmony", "gemma4", "marked", "functiongemma", "olmo3", "glimmer"])
async def test_a_call_that_must_come_is_streamed(serving, model):
    choice, values = ToolChoice("required"), {"num_predict": 600}
    request = said(model, "a", tools=(SETTING,), tool_choice=choice, tool_call_deltas=True, values=values)
    deltas, done = await answered(serving.chat(request))
    (call,) = [call for delta in (*deltas, done.delta) for call in delta.tool_calls]
    sent = [each for delta in (*deltas, done.delta) for each in delta.tool_call_deltas]
    assert (sent[0].id, sent[0].name, {each.index for each in sent}) == (call.id, "set", {0})
    assert json.loads("".join(each.arguments for each in sent)) == json.loads(call.arguments)
    assert (len(sent) == 1) == (model in WHOLE)


async def test_nothing_to_generate(serving):
    deltas, done = await answered(serving.generate(prompted("plain", "go a", values={"num_predict": 0})))
    assert (deltas, done.reason, done.usage.output_tokens) == ([], "length", 0)


async def test_endless_repetition_ends(serving):
    deltas, done = await answered(serving.generate(prompted("plain", "l")))
    assert (len(deltas), done.reason) == (31, "stop")


async def test_vectors(serving):
    found = await serving.embed(EmbedRequest(model="embedder", inputs=("hello", "hello world")))
    assert [len(each) for each in found.vectors] == [32, 32]
    assert found.token_counts == (3, 4)
    with pytest.raises(errors.EmbeddingsUnsupportedError):
        await serving.embed(EmbedRequest(model="plain", inputs=("a",)))


async def test_a_host_that_dies(serving):
    async with aclosing(serving.generate(prompted("plain", "b"))) as events:
        async for event in events:
            if isinstance(event, Delta):
                break
        os.kill(serving.loaded()[0].pid, signal.SIGKILL)
        with pytest.raises(errors.BackendCrashedError, match="SIGKILL"):
            async for _ in events:
                pass
    deltas, _ = await answered(serving.generate(prompted("plain", "go a")))
    assert parts(deltas)[0] == "Hello"


async def test_giving_up_frees_the_place(serving):
    async with aclosing(serving.generate(prompted("plain", "b"))) as events:
        async for event in events:
            if isinstance(event, Delta):
                break
    await asyncio.sleep(0)
    (entry,) = serving.loaded()
    assert (entry.active, entry.queued) == (0, 0)
