import pytest

from puna.backend import ModelFacts
from puna.errors import InvalidFormatError, MediaUnsupportedError
from puna.limits import Limits
from puna.messages import Message
from puna.model_name import ModelName
from puna.runtime.requirements import Lease
from puna.sandbox.sandbox import Sandbox
from puna.serving.conversation import Conversation, assembled
from puna.serving.requests import OutputConstraint
from puna.serving.templates import ModelTemplates


class Model:
    """Every character is a token."""

    async def tokenize(self, text, *, add_special, parse_special):
        return [ord(each) for each in text]


@pytest.fixture
async def make(stocked):
    """Makes a conversation with a model by its name."""
    async with Sandbox(Limits()) as sandbox:

        def make(name, context=1000, *, truncate=True, native=False):
            model = stocked.get(ModelName.parse(name))
            facts = ModelFacts(context_length=context)
            return Conversation(
                model=model,
                templates=ModelTemplates(model, sandbox),
                lease=Lease(model=Model(), key="m", backend="b", facts=facts, load_ns=0),
                renderer=None,
                tools=(),
                think=None,
                truncate=truncate,
                native=native,
                marks=not native,
            )

        yield make


def said(*contents):
    roles = ("user", "assistant")
    return [Message(role=roles[n % 2], content=content) for n, content in enumerate(contents)]


async def test_messages_are_rendered_by_the_go_template(make):
    prompt = await make("talker").prompt(said("a", "b", "c"))
    assert prompt.text == "[user]a[assistant]b[user]c"


async def test_the_oldest_messages_go_first_and_the_last_stays(make):
    prompt = await make("talker", context=20).prompt(said("a" * 30, "b", "c"))
    assert prompt.text == "[assistant]b[user]c"
    prompt = await make("talker", context=2).prompt(said("a", "b", "c" * 30))
    assert prompt.text == "[user]" + "c" * 30


async def test_without_truncation_all_messages_stay(make):
    prompt = await make("talker", context=20, truncate=False).prompt(said("a" * 30, "b", "c"))
    assert prompt.text.startswith("[user]aaa")


async def test_with_a_jinja_template_a_bad_format_comes_before_the_prompt(make):
    constraint = OutputConstraint("json_schema", "3")
    with pytest.raises(InvalidFormatError) as found:
        await make("native", native=True).prompt(said("a"), constraint)
    assert not found.value.early
    with pytest.raises(InvalidFormatError) as found:
        await make("native", native=True).prompt(said("a", "b", "c"), constraint)
    assert found.value.early  # messages might be dropped, and Ollama then renders them before it runs the request
    await make("talker").prompt(said("a"), constraint)


async def test_a_jinja_template_needs_a_model_that_takes_media(make):
    message = Message(role="user", content="a", media=(b"image",))
    with pytest.raises(MediaUnsupportedError):
        await make("native", native=True).prompt([message])


async def test_media_are_marked_in_their_messages(make):
    first = Message(role="user", content="a", media=(b"one",))
    second = Message(role="user", content="b [img] c", media=(b"two",))
    prompt = await make("talker").prompt([first, second])
    assert prompt.text == "[user][img-0]a\n\nb [img-1] c"  # messages of one role in a row are joined
    assert prompt.media == (b"one", b"two")


def test_preset_messages_come_before_what_is_said(stocked):
    model = stocked.get(ModelName.parse("talker"))
    preset = (Message(role="user", content="old"), Message(role="assistant", content="answer"))
    found = assembled(model, preset, "Be brief.", said("new"))
    assert [each.content for each in found] == ["Be brief.", "old", "answer", "new"]
