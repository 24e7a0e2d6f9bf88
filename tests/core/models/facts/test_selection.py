import pytest

from puna.models.facts.header_cache import read_template
from puna.models.facts.selection import is_harmony, mode, template_capabilities
from puna.models.layout.config import Config

PLAIN = "{{ .Prompt }}"
TOOLS = "{{ .Tools }}"
TRIP = '{{ .Tools }}{{ range .Messages }}{{ range .ToolCalls }}{{ end }}{{ if eq .Role "tool" }}{{ end }}{{ end }}'
THINKS = "{{ range .Messages }}<a>{{ .Thinking }}</a>{{ end }}"
JINJA_TOOLS = "{% if tools %}{% endif %}"
JINJA_BOTH = JINJA_TOOLS + "<think></think>"
JINJA_TRIP = JINJA_TOOLS + "tool_calls ipython"


@pytest.mark.parametrize(
    ("template", "jinja", "chosen"),
    [
        (None, "", "native"),
        (None, JINJA_TOOLS, "native"),
        (PLAIN, "", "rendered"),
        (PLAIN, "x", "rendered"),
        (PLAIN, JINJA_TOOLS, "native"),  # more
        (TRIP, JINJA_BOTH, "rendered"),  # more, but only ours makes the round trip
        (TRIP, JINJA_BOTH + "tool_calls ipython", "native"),
        (TOOLS, JINJA_TOOLS, "rendered"),
        (TOOLS, JINJA_TRIP, "native"),  # the same, but only Jinja makes the round trip
        (TRIP, JINJA_TRIP, "rendered"),
        (TOOLS + THINKS, JINJA_BOTH, "rendered"),
        (TOOLS + THINKS, JINJA_TRIP, "rendered"),  # less
        (TOOLS + "{{ .Suffix }}", JINJA_BOTH, "rendered"),  # as many, but others
    ],
)
def test_the_more_capable_template_is_used(template, jinja, chosen):
    assert mode(Config(), template, read_template(template) if template else None, jinja, None) == chosen


@pytest.mark.parametrize(("setting", "chosen"), [(True, "rendered"), (False, "native")])
@pytest.mark.parametrize("jinja", ["", JINJA_TOOLS])
def test_a_setting_decides_where_there_is_a_go_template(setting, chosen, jinja):
    assert mode(Config(), PLAIN, read_template(PLAIN), jinja, setting) == chosen
    assert mode(Config(), None, None, jinja, setting) == "native"


@pytest.mark.parametrize("config", [Config(renderer="x"), Config(parser="x"), Config(model_format="safetensors")])
def test_builtin_renderers_and_parsers_need_no_template(config):
    assert mode(config, None, None, JINJA_TOOLS, False) == "rendered"


def test_harmony_is_rendered():
    config, text = Config(model_family="gpt-oss"), "<|start|><|end|>"
    assert mode(config, text, read_template(text), JINJA_TOOLS, None) == "rendered"
    assert mode(config, PLAIN, read_template(PLAIN), JINJA_TOOLS, None) == "native"
    assert is_harmony(config, text)
    assert not is_harmony(Config(model_family="llama"), text)
    assert not is_harmony(config, None)


def test_variables_tell_what_a_go_template_can():
    assert template_capabilities(read_template("{{ .SUFFIX }}" + TOOLS + THINKS)) == ("tools", "insert", "thinking")
    assert template_capabilities(read_template(PLAIN)) == ()
