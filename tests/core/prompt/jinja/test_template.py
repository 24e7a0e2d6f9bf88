import json

import pytest
from tests.core.prompt.jinja.samples import BOS, EOS, PROMPTS, TEMPLATES, TOOLS, message, thinking

from puna.errors import TemplateError, TemplateRefusedError
from puna.messages import Message, Think, Tool
from puna.prompt.jinja.template import ChatTemplate, Template

USER = Message(role="user", content="hi")
CASES = [
    pytest.param(template["template"], case, id=f"{template['name']}-{case['name']}")
    for template in PROMPTS
    for case in template["cases"]
]


@pytest.mark.parametrize(("source", "case"), CASES)
def test_a_prompt_is_that_of_ollama(source, case):
    template = ChatTemplate(source, BOS, EOS)
    messages = [message(each) for each in case["messages"]]
    tools = TOOLS if case["tools"] else ()
    if case["error"] is not None:
        with pytest.raises(TemplateRefusedError) as refused:
            template.render(messages, tools, think=thinking(case["think"]))
        assert str(refused.value) == case["error"]
    else:
        assert template.render(messages, tools, think=thinking(case["think"])) == case["prompt"]


def test_a_file_without_a_template_is_served_with_chatml():
    prompt = ChatTemplate("").render([Message(role="system", content="S"), USER])
    assert prompt == "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_a_template_that_cannot_be_read_is_an_error():
    with pytest.raises(TemplateError, match="Parser Error"):
        ChatTemplate("{% for m in messages %}{{ m.content ")


def test_a_token_that_the_tokenizer_adds_is_cut_from_the_prompt():
    source = "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"
    assert ChatTemplate(source, "<s>", "</s>").render([USER]) == "<s>hi</s>"
    assert ChatTemplate(source, "<s>", "</s>", adds_bos=True, adds_eos=True).render([USER]) == "hi"


def test_media_are_markers_numbered_over_all_messages():
    messages = [
        Message(role="user", content="one", media=(b"a", b"b")),
        Message(role="assistant", content="x"),
        Message(role="user", media=(b"c",)),
    ]
    prompt = ChatTemplate("{% for m in messages %}{{ m.content }};{% endfor %}").render(messages)
    assert prompt == "one[img-0][img-1];x;[img-2];"


def test_the_variant_for_tools_is_used_when_there_are_tools():
    template = ChatTemplate("plain", tool_source="{{ tools[0].function.name }}")
    assert template.render([USER]) == "plain"
    assert template.render([USER], TOOLS) == "get_weather"


def test_the_turn_can_be_left_closed():
    template = ChatTemplate(TEMPLATES["plain"])
    assert template.render([USER], add_generation_prompt=False) == "<|im_start|>user\nhi<|im_end|>\n"


def test_an_answer_that_was_begun_goes_on_after_empty_thoughts():
    template = ChatTemplate(TEMPLATES["forced-thinking"])
    messages = [USER, Message(role="assistant", content="Sure")]
    assert template.render(messages).endswith("<assistant>\n<think>\n\n</think>\n\nSure")
    parser = template.parser(messages)
    assert parser.feed(", yes").content == "Sure, yes"


def test_a_begun_answer_with_calls_is_refused():
    call = message({"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{}"}]})
    with pytest.raises(TemplateRefusedError) as refused:
        ChatTemplate("").render([USER, call])
    error = json.loads(str(refused.value))["error"]
    assert error == {
        "code": 400,
        "message": "Cannot continue an assistant message that contains tool calls.",
        "type": "invalid_request_error",
    }


def test_tools_that_are_no_json_are_refused():
    with pytest.raises(TemplateRefusedError, match="Failed to parse tools"):
        ChatTemplate("").render([USER], [Tool(name="f", parameters="{")])


def test_a_template_learns_whether_to_think():
    template = ChatTemplate("{{ enable_thinking }} {{ reasoning_effort }}")
    assert template.render([USER], think=Think(True, "high")) == "True high"
    assert template.render([USER], think=Think(False)) == "False "
    assert template.render([USER]) == "False "


def test_nothing_is_escaped_for_html():
    assert (
        ChatTemplate("{{ '<a>' | safe }}{{ ('<' | safe) ~ '<b>' }}{{ ['<'] | tojson }}").render([USER])
        == '<a><<b>["<"]'
    )


def test_templates_reach_nothing_outside():
    for source in ("{{ messages.__class__.__mro__ }}", "{{ ''.__class__ }}", "{{ messages[0].update({'a': 1}) }}"):
        try:
            assert ChatTemplate(source).render([USER]) == ""
        except TemplateRefusedError as refused:
            assert "unsafe" in str(refused) or "not safely callable" in str(refused)  # noqa: PT017


@pytest.mark.parametrize("source", ["{{ 1 + missing }}", "{{ missing() }}", "{% for x in 3 %}{% endfor %}"])
def test_what_goes_wrong_in_a_template_is_refused(source):
    with pytest.raises(TemplateRefusedError, match="Automatic parser generation failed"):
        ChatTemplate(source).render([USER])


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("1234567.25", "1234567.25"),
        ("0.1", "0.1"),
        ("2.0", "2.0"),
        ("3.141592653589793", "3.141592653589793"),
        ("1234567.25 ~ ''", "1234567.25"),
        ("1234567.25 | string", "1234567.25"),
        ("1234567.25 | tojson", "1.23457e+06"),
        ("none", ""),
        ("'a' ~ none", "a"),
        ("none | string", "None"),
        ("none | tojson", "null"),
    ],
)
def test_numbers_and_none_are_printed(expression, text):
    assert ChatTemplate("{{ " + expression + " }}").render([Message(role="user", content="x")]) == text


def test_an_error_after_a_patched_check_names_its_own_line():
    condition = "message['content'] == '' and message['tool_calls'] | length == 0"
    check = "{%- if " + condition + " %}{{ raise_exception('x') }}{%- endif %}"
    source = f"{{%- set message = messages[0] %}}\n{check}\nthird\n{{{{ raise_exception('refused') }}}}"
    with pytest.raises(TemplateRefusedError, match="refused") as raised:
        Template(source, BOS, EOS).apply([{"role": "user", "content": "a"}], {})
    assert "at line 4" in raised.value.message
