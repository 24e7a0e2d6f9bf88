import jinja2
import pytest

from puna.gotemplate.parser import parse
from puna.models.known_templates import KNOWN, nearest

CONVERSATION = [("user", "Hi <there>"), ("assistant", "Yes?"), ("user", "Tell me.")]


def by_jinja(text, messages):
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    turns = [{"role": role, "content": content} for role, content in messages]
    return environment.from_string(text).render(
        messages=turns, add_generation_prompt=True, bos_token="", eos_token="</s>"
    )


def by_go(text, messages):
    return parse(text).execute({"Messages": [{"Role": role, "Content": content} for role, content in messages]})


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.name)
def test_the_go_template_writes_what_the_jinja_template_does(known):
    for spelling in known.jinja:
        if "You are a helpful assistant." in spelling:  # a default that Go templates leave to the model's SYSTEM
            continue
        assert by_go(known.template, CONVERSATION) == by_jinja(spelling, CONVERSATION)


@pytest.mark.parametrize("name", ["chatml", "llama3-instruct", "zephyr", "openchat"])
def test_system_messages_are_written_where_the_model_knows_them(name):
    known = next(each for each in KNOWN if each.name == name)
    told = [("system", "Be brief."), *CONVERSATION]
    assert by_go(known.template, told) == by_jinja(known.jinja[0], told)


def test_models_that_refuse_system_messages_get_them_with_the_users():
    known = {each.name: each.template for each in KNOWN}
    told = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Yes?"), ("user", "Go")]
    assert by_go(known["mistral-instruct"], told) == "[INST] Be brief.\n\nHi [/INST]Yes?</s>[INST] Go [/INST]"
    assert by_go(known["gemma-instruct"], told) == (
        "<start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nYes?<end_of_turn>\n"
        "<start_of_turn>user\nGo<end_of_turn>\n<start_of_turn>model\n"
    )


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.name)
def test_a_template_is_known_up_to_ninety_nine_edits(known):
    for spelling in known.jinja:
        assert nearest(spelling) is known
        assert nearest("~" * 99 + spelling) is known
        assert nearest("~" * 100 + spelling) is None


def test_what_is_far_from_all_is_unknown():
    assert nearest("{{ messages }}" * 30) is None
