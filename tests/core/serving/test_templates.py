import pytest

from puna.backend import ModelFacts
from puna.errors import UnknownRendererError
from puna.limits import Limits
from puna.messages import Message
from puna.model_name import ModelName
from puna.sandbox.sandbox import Sandbox
from puna.serving.templates import ModelTemplates

USER = (Message(role="user", content="hi"),)


@pytest.fixture
async def templates(stocked):
    """Makes the templates of a model by its name."""
    async with Sandbox(Limits()) as sandbox:
        yield lambda name: ModelTemplates(stocked.get(ModelName.parse(name)), sandbox)


async def test_a_model_without_a_template_gets_the_prompt_as_it_is(templates):
    assert await templates("bare").template.render(USER, (), None) == "hi"


async def test_tags_come_from_the_go_template(templates):
    assert templates("thinker").thinking_tags == ("<think>", "</think>")
    assert templates("plain").thinking_tags is None
    assert templates("tools").tool_tag == "<tool_call>"


async def test_the_parser_is_a_new_one_for_each_answer(templates):
    coder = templates("coder")
    assert coder.parser_name == "qwen3-coder"
    assert coder.parser() is not coder.parser()
    assert coder.renderer() is not None
    assert templates("plain").parser() is None
    assert templates("plain").renderer() is None


async def test_a_renderer_that_does_not_exist_is_an_error_and_a_parser_is_not(templates):
    unknown = templates("unrenderable")
    with pytest.raises(UnknownRendererError, match="nosuch"):
        unknown.renderer()
    assert unknown.parser() is None


async def test_a_chat_template_is_kept_for_each_spelling_of_the_ends(templates):
    native = templates("native")
    one = native.chat_template(ModelFacts(context_length=8, bos_text="<s>"))
    assert native.chat_template(ModelFacts(context_length=9, bos_text="<s>")) is one
    assert native.chat_template(ModelFacts(context_length=8, bos_text="<t>")) is not one
