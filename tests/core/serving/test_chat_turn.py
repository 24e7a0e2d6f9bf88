import json
import re

import pytest
from tests.core.serving.asking import WEATHER, answered, parts, said

from puna import errors
from puna.messages import Think
from puna.serving.requests import OutputConstraint

JSON = OutputConstraint("json_object")


async def ask(serving, *args, **kwargs):
    return await answered(serving.chat(said(*args, **kwargs)))


class TestNamedParsers:
    """The model's configuration names a renderer and a parser."""

    CALL = "<tool_call><function=get_weather><parameter=city>Rome</parameter></function></tool_call>"

    async def test_prompt_and_calls(self, serving, backend):
        backend.play("Look: ", self.CALL[:20], self.CALL[20:])
        deltas, done = await ask(serving, "coder", "a", tools=(WEATHER,))
        assert backend.requests[0].prompt.endswith("<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n")
        calls = [call for delta in (*deltas, done.delta) for call in delta.tool_calls]
        assert [(call.name, json.loads(call.arguments)) for call in calls] == [("get_weather", {"city": "Rome"})]
        assert re.fullmatch("call_[a-z0-9]{8}", calls[0].id)
        assert "".join(delta.text for delta in deltas).startswith("Look:")

    async def test_thinking(self, serving, backend):
        backend.play("hm", "</think>", "\n\n", "42")
        deltas, _ = await ask(serving, "reasoner", "a")
        assert [each for each in parts(deltas) if each] == ["/hm/", "42"]

    async def test_thinking_then_a_form(self, serving, backend):
        backend.play("hm", "</think>", "\n\n", "free", 60)
        backend.play("{}")
        deltas, _ = await ask(serving, "reasoner", "a", constraint=JSON)
        assert [each for each in parts(deltas) if each] == ["/hm/", "{}"]
        assert [each.constraint is not None for each in backend.requests] == [False, True]
        assert "hm" in backend.requests[1].prompt

    async def test_thinking_without_an_answer_then_a_form(self, serving, backend):
        backend.play("hm")
        backend.play("{}")
        deltas, _ = await ask(serving, "reasoner", "a", constraint=JSON)
        assert [each for each in parts(deltas) if each][-1] == "{}"

    async def test_thinking_off_then_a_form_at_once(self, serving, backend):
        await ask(serving, "reasoner", "a", constraint=JSON, think=Think(on=False))
        assert backend.requests[0].constraint is not None

    async def test_the_markers_of_the_parser_go_with_a_budget(self, serving, backend):
        await ask(serving, "reasoner", "a", thinking_budget=3)
        found = backend.requests[0].thinking_budget
        assert (found.max_tokens, found.markers.open, found.markers.ends[0]) == (3, True, "</think>")
        assert (await ask(serving, "reasoner", "a"))[1].reason == "stop"
        assert backend.requests[1].thinking_budget is None

    async def test_thinking_off_needs_no_budget(self, serving, backend):
        await ask(serving, "reasoner", "a", thinking_budget=3, think=Think(on=False))
        assert backend.requests[0].thinking_budget is None

    async def test_a_renderer_that_nobody_knows(self, serving):
        with pytest.raises(errors.UnknownRendererError, match='unknown renderer "nosuch"'):
            await ask(serving, "unrenderable", "a")
