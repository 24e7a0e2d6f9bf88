import asyncio
import json
import re

import pytest
from tests.core.serving.asking import WEATHER, answered, parts, said, until, user

from puna import errors
from puna.messages import Message, Think, Tool, ToolCall
from puna.serving.requests import OutputConstraint, ToolChoice

JSON = OutputConstraint("json_object")


async def ask(serving, *args, **kwargs):
    return await answered(serving.chat(said(*args, **kwargs)))


async def test_messages_become_a_prompt(serving, backend):
    backend.play("Hi", "!")
    deltas, done = await ask(serving, "talker", "a", Message(role="assistant", content="b"), "c")
    assert backend.requests[0].prompt == "[user]a[assistant]b[user]c"
    assert (parts(deltas), done.reason, done.context) == (["Hi", "!"], "stop", None)


@pytest.mark.parametrize(
    ("model", "fields", "error", "text"),
    [
        ("", {"top_logprobs": -1}, errors.InvalidRequestError, "top_logprobs must be between 0 and 20"),
        ("", {}, errors.ModelRequiredError, "model is required"),
        (" ", {}, errors.ModelRequiredError, "model is required"),
        ("a b", {}, errors.InvalidModelNameError, "invalid model name"),
        ("m:20b-cloud", {}, errors.CloudDisabledError, "ollama cloud is disabled: remote model is unavailable"),
        ("nothere", {}, errors.ModelNotFoundError, "model 'nothere' not found"),
        ("embedder", {"think": Think(on=True)}, errors.CapabilityMissingError, '"embedder" does not support thinking'),
        ("embedder", {"tools": (WEATHER,)}, errors.CapabilityMissingError, '"embedder" does not support chat'),
        (
            "talker",
            {"tools": (WEATHER,), "values": {"stop": "x"}},
            errors.CapabilityMissingError,
            "registry.ollama.ai/library/talker:latest does not support tools",
        ),
        (
            "talker",
            {"values": {"stop": [3]}, "constraint": OutputConstraint("json_schema", "[]")},
            errors.OptionTypeError,
            'option "stop" must be of an array of strings',
        ),
        (
            "talker",
            {"constraint": OutputConstraint("json_schema", "[]")},
            errors.InvalidFormatError,
            'invalid format: "[]"; expected "json" or a valid JSON Schema object',
        ),
    ],
)
async def test_order_of_checks(serving, model, fields, error, text):
    with pytest.raises(error) as raised:
        await ask(serving, model, "a", **fields)
    assert str(raised.value) == text


async def test_no_messages_load_or_unload(serving, backend):
    deltas, done = await ask(serving, "talker")
    assert (deltas, done.reason, len(serving.loaded())) == ([], "load", 1)
    _, done = await ask(serving, "talker", keep_alive=0.0)
    assert (done.reason, serving.loaded()) == ("unload", [])


async def test_loading_still_checks_what_the_model_can(serving):
    with pytest.raises(errors.CapabilityMissingError, match="does not support chat"):
        await ask(serving, "embedder")


async def test_rendering_only(serving, backend):
    deltas, done = await ask(serving, "full", "a", render_only=True)
    assert (deltas, done.rendered.text, backend.requests) == ([], "[system]Be brief.[user]a", [])


async def test_a_leading_system_message_replaces_the_models(serving, backend):
    await ask(serving, "full", Message(role="system", content="S"), "a")
    assert backend.requests[0].prompt == "[system]S[user]a"


class TestThinking:
    async def test_it_streams_apart(self, serving, backend):
        backend.play("<think>", "\nLet me", " see", ".\n</think>\n\n42", "!")
        deltas, _ = await ask(serving, "thinker", "a")
        assert parts(deltas) == ["/Let me/", "/ see/", "/.\n/", "42", "!"]
        assert len(deltas) == 4

    async def test_it_may_be_begun_by_the_prompt(self, serving, backend):
        backend.play("hm", "</think>", "ok")
        deltas, _ = await ask(serving, "thinker", "a<think>")
        assert parts(deltas) == ["/hm/", "ok"]

    async def test_off(self, serving, backend):
        backend.play("<think>", "x")
        deltas, _ = await ask(serving, "thinker", "a", think=Think(on=False))
        assert parts(deltas) == ["<think>", "x"]

    async def test_log_probabilities_of_held_text_are_lost(self, serving, backend):
        backend.play("<think>", "x")
        deltas, _ = await ask(serving, "thinker", "a", logprobs=True)
        assert [[each.raw for each in delta.logprobs] for delta in deltas] == [[b"x"]]


class TestTools:
    async def test_a_call_comes_whole_in_a_delta_of_its_own(self, serving, backend):
        backend.play(
            "Look: ", "<tool_call>", '{"name": "get_weather", ', '"arguments": {"city": "Rome"}}', "</tool_call>"
        )
        deltas, done = await ask(serving, "tools", "a", tools=(WEATHER,))
        assert parts(deltas) == ["Look: ", 'get_weather{"city":"Rome"}']
        assert re.fullmatch("call_[a-z0-9]{8}", deltas[1].tool_calls[0].id)
        assert (done.reason, done.delta.tool_calls) == ("stop", ())

    async def test_a_call_in_the_piece_of_its_content_follows_it(self, serving, backend):
        backend.play('Look: <tool_call>{"name": "get_weather", "arguments": {}}</tool_call>')
        deltas, _ = await ask(serving, "tools", "a", tools=(WEATHER,))
        assert parts(deltas) == ["Look: ", "get_weather{}"]
        assert len(deltas) == 2

    async def test_log_probabilities_of_held_text_are_kept(self, serving, backend):
        backend.play("<tool_call>", "x")
        deltas, _ = await ask(serving, "tools", "a", tools=(WEATHER,), logprobs=True)
        assert [[each.raw for each in delta.logprobs] for delta in deltas] == [[b"<tool_call>"], [b"x"]]

    async def test_calls_after_thinking(self, serving, backend):
        backend.play("<think>", "hm", "</think><tool_call>", '{"name": "get_weather", "arguments": {"city": "Rome"}}')
        deltas, _ = await ask(serving, "both", "a", tools=(WEATHER,))
        assert parts(deltas) == ["/hm/", 'get_weather{"city":"Rome"}']

    async def test_without_tools_nothing_is_looked_for(self, serving, backend):
        backend.play("<tool_call>", "{}")
        deltas, _ = await ask(serving, "tools", "a")
        assert parts(deltas) == ["<tool_call>", "{}"]

    async def test_none_may_be_called(self, serving, backend):
        await ask(serving, "tools", "a", tools=(WEATHER,), tool_choice=ToolChoice("none"))
        assert backend.requests[0].prompt == "[user]a"

    async def test_the_tag_is_preserved(self, serving, backend):
        await ask(serving, "tools", "a", tools=(WEATHER,))
        assert backend.requests[0].preserved_tokens == ("<tool_call>",)


class TestForcedCalls:
    REQUIRED = ToolChoice("required")
    TIME = Tool(name="get_time", parameters='{"type":"object","$defs":{"z":{"type":"string"}}}')

    async def test_behind_the_templates_tag(self, serving, backend):
        backend.play("<tool_call>\n", '{"name": "get_weather", "arguments": {"city": "Rome"}}')
        deltas, _ = await ask(serving, "tools", "a", tools=(WEATHER,), tool_choice=self.REQUIRED)
        assert parts(deltas) == ['get_weather{"city":"Rome"}']
        constraint = backend.requests[0].constraint
        assert (constraint.kind, "get_weather" in constraint.text) == ("lark", True)
        assert '%mark "<tool_call>" "\\n"' in constraint.text

    async def test_one_of_several(self, serving, backend):
        choice = ToolChoice("required", "get_time")
        await ask(serving, "tools", "a", tools=(WEATHER, self.TIME), tool_choice=choice)
        assert "get_weather" not in backend.requests[0].constraint.text + backend.requests[0].prompt

    async def test_one_that_is_not_there(self, serving):
        with pytest.raises(errors.InvalidRequestError, match='"nosuch"'):
            await ask(serving, "tools", "a", tools=(WEATHER,), tool_choice=ToolChoice("required", "nosuch"))

    async def test_after_thinking(self, serving, backend):
        backend.play("<think>", "hm", "</think>", "free", 60)
        backend.play("<tool_call>\n", '{"name": "get_weather", "arguments": {}}')
        deltas, _ = await ask(serving, "both", "a", tools=(WEATHER,), tool_choice=self.REQUIRED)
        assert [each for each in parts(deltas) if each] == ["/hm/", "get_weather{}"]

    async def test_as_the_models_own_template_writes_it(self, serving, backend):
        backend.play("<tool_call>\n", '{"name": "get_weather", "arguments": {}}', "\n</tool_call>")
        _, done = await ask(serving, "native", "a", tools=(WEATHER, self.TIME), tool_choice=self.REQUIRED)
        assert [call.name for call in done.delta.tool_calls] == ["get_weather"]
        text = backend.requests[0].constraint.text
        assert all(json.dumps(json.dumps(name)) in text for name in ("get_weather", "get_time"))

    async def test_as_the_parser_reads_it(self, serving, backend):
        backend.play("<tool_call>\n<function=get_weather>\n", "</function>\n</tool_call>")
        deltas, _ = await ask(serving, "coder", "a", tools=(WEATHER,), tool_choice=self.REQUIRED)
        assert parts(deltas) == ["get_weather{}"]
        assert '%mark "<tool_call>" "\\n<function=get_weather>\\n"' in backend.requests[0].constraint.text

    async def test_as_the_parser_reads_it_after_thinking(self, serving, backend):
        backend.play("hm", "</think>", "<tool_call><function=other></function></tool_call>", "free", 60)
        backend.play("<tool_call>\n<function=get_weather>\n</function>\n</tool_call>")
        deltas, _ = await ask(serving, "reasoner", "a", tools=(WEATHER,), tool_choice=self.REQUIRED)
        assert [each for each in parts(deltas) if each] == ["/hm/", "get_weather{}"]
        assert [each.constraint is None for each in backend.requests][-1] is False

    async def test_in_harmony_after_thinking(self, serving, backend):
        """The header of the second sequence is the call's, and the name becomes again what it was."""
        tool = Tool(name="get-weather", parameters='{"type":"object"}')
        backend.play(
            "<|channel|>analysis<|message|>", "hm", "<|end|>", "<|start|>assistant<|channel|>final<|message|>", "x"
        )
        backend.play("<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>", "{}")
        deltas, done = await ask(
            serving, "thinking-harmony", "a", tools=(tool,), tool_choice=self.REQUIRED, think=Think(True)
        )
        assert [each for each in parts([*deltas, done.delta]) if each] == ["/hm/", "get-weather{}"]
        assert backend.requests[-1].prompt.endswith("hm<|end|><|start|>assistant")

    async def test_a_form_goes_first(self, serving, backend):
        await ask(serving, "tools", "a", tools=(WEATHER,), tool_choice=self.REQUIRED, constraint=JSON)
        assert backend.requests[0].constraint.kind == "json_schema"

    async def test_automatic(self, serving, backend):
        await ask(serving, "tools", "a", tools=(WEATHER,))
        assert backend.requests[0].constraint is None


class TestNative:
    """The model file's own template renders, and tells how answers are read."""

    async def test_prompt(self, serving, backend):
        await ask(serving, "native", "a", Message(role="assistant", content="b"), "c")
        assert backend.requests[0].prompt == "<user>a<assistant>b<user>c"

    async def test_calls_come_with_the_end(self, serving, backend):
        backend.play(
            "Look.", "<tool_call>", '\n{"name": "get_weather", ', '"arguments": {"city": "Rome"}}', "\n</tool_call>"
        )
        deltas, done = await ask(serving, "native", "a", tools=(WEATHER,))
        assert parts(deltas) == ["Look."]
        (call,) = done.delta.tool_calls
        assert (call.name, json.loads(call.arguments), call.index) == ("get_weather", {"city": "Rome"}, 0)
        assert re.fullmatch("[A-Za-z0-9]{32}", call.id)

    async def test_no_guard_against_repetition(self, serving, backend):
        backend.play(*["x"] * 40)
        deltas, _ = await ask(serving, "native", "a")
        assert len(deltas) == 40

    async def test_long_prompts_are_refused(self, serving):
        with pytest.raises(errors.ContextOverflowError, match="exceeds the available context size"):
            await ask(serving, "native", "x" * 99, values={"num_ctx": 64})

    async def test_form(self, serving, backend):
        backend.play("{}")
        await ask(serving, "native", "a", constraint=JSON)
        assert backend.requests[0].constraint is not None

    async def test_history_of_calls(self, serving, backend):
        call = ToolCall(name="get_weather", arguments='{"city":"Rome"}')
        history = (user("a"), Message(role="assistant", tool_calls=(call,)), Message(role="tool", content="22"))
        await ask(serving, "native", *history, tools=(WEATHER,))
        prompt = backend.requests[0].prompt
        assert '"arguments": {"city": "Rome"}' in prompt
        assert prompt.endswith("<tool_response>\n22")


async def test_old_messages_are_dropped_to_fit(serving, backend):
    await ask(
        serving, "talker", "a" * 40, Message(role="assistant", content="b" * 40), "c" * 10, values={"num_ctx": 80}
    )
    assert backend.requests[0].prompt == "[assistant]" + "b" * 40 + "[user]" + "c" * 10


async def test_without_truncation_none_is_dropped(serving, backend):
    with pytest.raises(errors.ContextOverflowError):
        await ask(serving, "talker", "a" * 70, "c" * 10, values={"num_ctx": 64}, truncate=False)


@pytest.mark.parametrize(
    ("first", "sequences"), [(("a", 60), 2), (("<think>", "hm", 60), 1), (("<think>x</think>y", 60), 2)]
)
async def test_cancelling_either_sequence(serving, backend, first, sequences):
    backend.play(*first)
    backend.play(60)
    task = asyncio.create_task(ask(serving, "thinker", "a", constraint=JSON))
    await until(lambda: len(backend.requests) == sequences and backend.running == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert backend.running == 0


@pytest.mark.parametrize("render_only", [False, True])
async def test_pictures_for_a_blind_model_with_a_template_of_its_own(serving, render_only):
    message = Message(role="user", content="a", media=(b"png",))
    with pytest.raises(errors.MediaUnsupportedError, match="image input is not supported"):
        await ask(serving, "native", message, render_only=render_only)


async def test_pictures_for_a_seeing_model_with_a_template_of_its_own(serving, backend):
    backend.facts = {"vision": True}
    await ask(serving, "native", Message(role="user", content="a", media=(b"png",)))
    assert backend.requests[0].prompt == "<user>a[img-0]"
