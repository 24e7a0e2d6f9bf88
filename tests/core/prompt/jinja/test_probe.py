import pytest
from tests.core.prompt.jinja.samples import TEMPLATES

from puna.prompt.jinja.probe import Abilities, probe

# equal to what llama.cpp's engine finds, which decides by what a template reads
FOUND = {
    "plain": Abilities(tool_calls=False, parallel_tool_calls=False),
    "no-system": Abilities(system=False, tool_calls=False, parallel_tool_calls=False),
    "typed": Abilities(content_parts=True, tool_calls=False, parallel_tool_calls=False),
    "either": Abilities(tool_calls=False, parallel_tool_calls=False),
    "hermes": Abilities(object_arguments=True),
    "llama": Abilities(object_arguments=True, parallel_tool_calls=False),
    "mistral": Abilities(object_arguments=True),
    "coder": Abilities(object_arguments=True),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_a_template_does_with_its_input_is_found_by_changing_the_input(name):
    assert probe(TEMPLATES[name]) == FOUND[name]


@pytest.mark.parametrize(
    ("expression", "shows"),
    [
        ("{{ m.content | upper }}", True),
        ("{{ m.content[:2] }}", True),
        ("{% if m.content %}something{% endif %}", False),
        ("{{ raise_exception('no ' + m.content) }}", False),
    ],
)
def test_a_value_is_used_if_the_prompt_depends_on_it(expression, shows):
    system = f"{{% for m in messages if m.role == 'system' %}}{expression}{{% endfor %}}"
    assert probe(system + "{{ messages[-1].content }}").system is shows


def test_calls_are_found_in_the_notation_that_a_template_takes():
    calls = "{% for m in messages %}{% for c in m.tool_calls %}{{ c.function.arguments }}{% endfor %}{% endfor %}"
    found = probe("{{ messages[0].content }}" + calls)
    assert (found.tool_calls, found.parallel_tool_calls, found.object_arguments) == (True, True, False)
