import pytest

from puna.prompt.jinja.template import ChatTemplate

TURNS = "{% for m in messages %}<|{{ m.role }}|>"
END = "<|end|>{% endfor %}"


def derived(body, opening="<|assistant|>"):
    return ChatTemplate(f"{TURNS}{body}{END}{{% if add_generation_prompt %}}{opening}{{% endif %}}").derived()


def test_a_template_without_thinking_and_calls_implies_content_alone():
    found = derived("{{ m.content }}")
    assert (found.thinks, found.content_start, found.calls_marker, found.preserved_tokens) == (False, "", "", ())


def test_the_markers_around_an_earlier_thought_are_those_of_thinking():
    found = derived(
        "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content }}"
    )
    assert (found.thinks, found.thinking_start, found.thinking_end) == (True, "<think>\n", "\n</think>\n\n")
    assert found.preserved_tokens == ("<think>", "</think>")


@pytest.mark.parametrize(
    ("opening", "start", "end"),
    [
        ("{% if enable_thinking %}<think>\n{% else %}<think>\n\n</think>{% endif %}", "<think>", "</think>"),
        ("{% if enable_thinking %}<think>{% endif %}", "<think>", ""),
    ],
)
def test_the_two_openings_of_a_turn_show_thinking_that_earlier_turns_do_not(opening, start, end):
    found = derived("{{ m.content }}", f"<|assistant|>{opening}")
    assert (found.thinks, found.thinking_start.strip(), found.thinking_end.strip()) == (True, start, end)


def test_markers_around_content_are_found():
    found = derived(
        "{% if m.role == 'assistant' %}<answer>{{ m.content }}</answer>{% else %}{{ m.content }}{% endif %}"
    )
    assert (found.content_start, found.content_end) == ("", "")
    calls = "{% for c in m.tool_calls %}<call>{{ c.function | tojson }}</call>{% endfor %}"
    thought = "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    found = derived(f"{thought}{{% if m.content %}}<answer>{{{{ m.content }}}}</answer>{{% endif %}}{calls}")
    assert (found.content_start, found.content_end) == ("<answer>", "</answer>")
