import pytest
from tests.core.prompt.jinja.samples import TEMPLATES

from puna.prompt.jinja.probe import Abilities, probe

# as the reference's engine found them
FOUND = {
    "plain": Abilities(tools=False, tool_calls=False, parallel_tool_calls=False),
    "no-system": Abilities(system=False, tools=False, tool_calls=False, parallel_tool_calls=False),
    "typed": Abilities(
        text_content=False, typed_content=True, tools=False, tool_calls=False, parallel_tool_calls=False
    ),
    "either": Abilities(typed_content=True, tools=False, tool_calls=False, parallel_tool_calls=False),
    "hermes": Abilities(object_arguments=True, kept_reasoning=True),
    "llama": Abilities(object_arguments=True, parallel_tool_calls=False),
    "mistral": Abilities(object_arguments=True),
    "coder": Abilities(object_arguments=True),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_a_template_can_do_is_found_by_watching_what_it_reads(name):
    assert probe(TEMPLATES[name]) == FOUND[name]
