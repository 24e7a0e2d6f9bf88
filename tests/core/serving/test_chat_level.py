"""Backends that take messages: nothing is rendered and nothing parsed."""

import asyncio
from dataclasses import replace

import pytest
from tests.core.serving.asking import WEATHER, answered, parts, prompted, said, until
from tests.core.serving.conftest import PLUGIN

from puna import errors
from puna.backend import (
    ChatDelta,
    ChatMessage,
    ChatTool,
    ChatToolCall,
    Constraint,
    Finish,
    Prefill,
    TextDelta,
    TokenLogprob,
)
from puna.messages import Message, Think, ToolCall, ToolChoice
from puna.models.store import ModelStore
from puna.plugins import Plugin, Registry, read
from puna.serving.installed_backends import InstalledBackends
from puna.serving.requests import OutputConstraint


@pytest.fixture
def registry(request):
    manifest = read(PLUGIN / "puna_messages.backend.toml", python_class="puna_played:PlayedBackend")
    manifest = replace(manifest, capabilities=replace(manifest.capabilities, **getattr(request, "param", {})))
    return Registry(lambda: [Plugin(name="messages", manifest=manifest)])


@pytest.fixture
def stocked(stocked, registry):
    """The same store, which knows the backend."""
    return ModelStore(stocked.root, backends=InstalledBackends(registry))


@pytest.fixture(autouse=True)
def facts(backend):
    backend.facts = {"tokenizer": False, "context_length": 0}


async def ask(serving, *messages, model="talker", **fields):
    return await answered(serving.chat(said(model, *messages, **fields)))


async def test_everything_reaches_the_backend_as_it_is(serving, backend):
    messages = (
        Message(role="user", content="[img-0] <|im_start|>", media=(b"png",)),
        Message(
            role="assistant", thinking="Hm.", tool_calls=(ToolCall(name="get_weather", arguments='{"a": 1.0}', id="x"),)
        ),
        Message(role="tool", content="sunny", tool_name="get_weather", tool_call_id="x"),
    )
    await ask(
        serving,
        *messages,
        tools=(WEATHER,),
        tool_choice=ToolChoice("required", "get_weather"),
        think=Think(True, "low"),
        constraint=OutputConstraint("json_schema", '{"type": "object"}'),
        values={"num_predict": 9, "stop": ["END"]},
        logprobs=True,
        top_logprobs=3,
    )
    [request] = backend.requests
    assert request.prompt == ""
    assert request.chat.messages == (
        ChatMessage(role="user", content="[img-0] <|im_start|>", media=(b"png",)),
        ChatMessage(
            role="assistant",
            thinking="Hm.",
            tool_calls=(ChatToolCall(name="get_weather", arguments_json='{"a": 1.0}', id="x"),),
        ),
        ChatMessage(role="tool", content="sunny", tool_name="get_weather", tool_call_id="x"),
    )
    assert request.chat.tools == (ChatTool(name="get_weather", parameters_json=WEATHER.parameters),)
    assert (request.chat.tool_choice, request.chat.thinking) == ("tool:get_weather", "low")
    assert request.constraint == Constraint("json_schema", '{"type": "object"}')
    assert (request.max_tokens, request.stop, request.top_logprobs) == (9, ("END",), 3)
    assert backend.tokenized == []


@pytest.mark.parametrize(
    ("think", "sent"), [(None, ""), (Think(True), "on"), (Think(False), "off"), (Think(True, "max"), "max")]
)
async def test_thinking(serving, backend, think, sent):
    await ask(serving, "a", think=think)
    assert backend.requests[0].chat.thinking == sent


async def test_the_models_own_messages_come_first(serving, backend):
    await ask(serving, "hi", model="full")
    assert backend.requests[0].chat.messages == (
        ChatMessage(role="system", content="Be brief."),
        ChatMessage(role="user", content="hi"),
    )
    assert backend.requests[0].stop == ("END",)
    unset = backend.requests[0].sampling.unset
    assert "temperature" not in unset
    assert "top_p" in unset


async def test_deltas_become_those_of_the_answer(serving, backend):
    entry = TokenLogprob(b"Yes", -1, -0.5)
    backend.play(
        Prefill(1, 2),
        ChatDelta(thinking="Hm."),
        ChatDelta(content="<think>Yes", logprobs=(entry,)),
        ChatDelta(tool_calls=(ChatToolCall(name="f", arguments_json='{"a": 1}', id="own"),)),
        ChatDelta(tool_calls=(ChatToolCall(name="g"), ChatToolCall(name="h"))),
        Finish(reason="length", prompt_tokens=7, cached_prompt_tokens=2, output_tokens=3, stop_sequence="x"),
    )
    deltas, done = await ask(serving, "a", logprobs=True)
    assert parts(deltas) == ["/Hm./", "<think>Yes", 'f{"a": 1}', "g{}", "h{}"]
    assert deltas[1].logprobs == (entry,)
    calls = [call for delta in deltas for call in delta.tool_calls]
    assert [call.index for call in calls] == [0, 1, 2]
    assert calls[0].id == "own"
    assert all(call.id.startswith("call_") for call in calls[1:])
    assert (done.reason, done.stop_sequence) == ("length", "x")
    assert (done.usage.prompt_tokens, done.usage.cached_prompt_tokens, done.usage.output_tokens) == (7, 2, 3)


async def test_no_thinking_where_the_client_turned_it_off(serving, backend):
    backend.play(ChatDelta(thinking="Hm."), ChatDelta(content="Yes", thinking="!"))
    deltas, _ = await ask(serving, "a", think=Think(False))
    assert parts(deltas) == ["Yes"]


@pytest.mark.parametrize("call", [ChatToolCall(name="f", arguments_json="[1]"), ChatToolCall(name="", id="x")])
async def test_a_call_that_is_none(serving, backend, call):
    backend.play(ChatDelta(tool_calls=(call,)))
    with pytest.raises(errors.BackendFailedError, match="tool call"):
        await ask(serving, "a")


async def test_text_in_place_of_a_message(serving, backend):
    backend.play(TextDelta("a"))
    with pytest.raises(errors.BackendFailedError, match="text"):
        await ask(serving, "a")


async def test_a_prompt_is_a_conversation_of_one_message(serving, backend):
    backend.play(ChatDelta(content="Hi"))
    deltas, done = await answered(serving.generate(prompted("full", "a", media=(b"png",), system="Shout.")))
    assert parts(deltas) == ["Hi"]
    assert done.context is None
    assert backend.requests[0].chat.messages == (
        ChatMessage(role="system", content="Shout."),
        ChatMessage(role="user", content="a", media=(b"png",)),
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("raw", True),
        ("suffix", "b"),
        ("template", "{{ .Prompt }}"),
        ("context", (1, 2)),
        ("render_only", True),
    ],
)
async def test_what_belongs_to_prompts_is_refused_by_name(serving, backend, name, value):
    with pytest.raises(errors.UnsupportedOperationError, match=f"backend 'messages' does not support {name}"):
        await answered(serving.generate(prompted("plain", "a", **{name: value})))
    assert backend.requests == []
    assert backend.specs == []


async def test_render_only_is_refused(serving, backend):
    with pytest.raises(errors.UnsupportedOperationError, match="render_only"):
        await ask(serving, "a", render_only=True)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"constraint": OutputConstraint("regex", "a+")}, "structured output of kind regex"),
        ({"logit_bias": {1: 2.0}}, "logit_bias"),
        ({"thinking_budget": 5}, "thinking_budget"),
        ({"n": 2}, "several answers"),
    ],
)
async def test_demands_on_the_form_are_refused_by_name_before_anything_runs(serving, backend, fields, words):
    for call in (serving.chat(said("talker", "a", **fields)), serving.generate(prompted("talker", "a", **fields))):
        with pytest.raises(errors.UnsupportedOperationError, match=words):
            await answered(call)
    assert backend.specs == []


async def test_a_budget_that_may_be_ignored_is_no_demand(serving, backend):
    await ask(serving, "a", thinking_budget=5, think_if_possible=True)
    assert backend.requests[0].chat.thinking_budget is None


@pytest.mark.parametrize("registry", [{"thinking_budget": True}], indirect=True)
async def test_a_budget_reaches_a_backend_that_enforces_it(serving, backend):
    await ask(serving, "a", thinking_budget=0)
    assert backend.requests[0].chat.thinking_budget == 0
    assert backend.requests[0].thinking_budget is None


async def test_cancelling(serving, backend):
    backend.play(60)
    task = asyncio.create_task(ask(serving, "a"))
    await until(lambda: backend.running == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert backend.running == 0


async def test_an_error_of_the_backend(serving, backend):
    backend.play(ChatDelta(content="a"), RuntimeError("it broke"))
    with pytest.raises(errors.BackendFailedError, match="it broke"):
        await ask(serving, "a")


async def test_loading_alone(serving, backend):
    _, done = await answered(serving.chat(said("talker")))
    assert (done.reason, backend.requests) == ("load", [])


async def test_the_capabilities_that_are_shown_are_the_backends(serving):
    shown = await serving.catalogue.show("plain")
    assert shown.capabilities == ("completion", "tools", "thinking")
    listed = {each.name.model: each.capabilities for each in await serving.catalogue.list()}
    assert listed["plain"] == shown.capabilities
