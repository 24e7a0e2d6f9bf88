import pytest
from jinja2 import TemplateSyntaxError

from puna.prompt.jinja.environment import FAILURES, ChatEnvironment, RaisedByTemplateError, place_in_source


def render(source, **variables):
    return ChatEnvironment().compiled(source)(variables)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ none }}{{ missing.deeper }}{{ {} }}", ""),
        ("{{ [1, 'a', none, [true]] }}", "1aTrue"),
        ("{{ none ~ 1 ~ 'a' }}", "1a"),
        ("{{ 1 + 'a' }}{{ 1 + 2 }}", "1a3"),
        ("{{ none | string }}", "None"),
        ("{{ {'a': [1, 2.5, '<é>', none]} | tojson }}", '{"a": [1, 2.5, "<é>", null]}'),
        ("{{ 3.14159265 | tojson }} {{ 3.14159265 }}", "3.14159 3.14159265"),
        ("{{ {'b': 1, 'a': 2} | tojson(indent=2, sort_keys=true) }}", '{\n  "a": 2,\n  "b": 1\n}'),
        ("{% generation %}x{% endgeneration %}", "x"),
        ("{% for i in [1, 2] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "1"),
        ("{% set l = [] %}{% set _ = l.append(1) %}{{ l }}", "1"),
    ],
)
def test_values_print_as_in_llama_cpp(source, text):
    assert render(source) == text


def test_an_exception_of_the_template_knows_its_place():
    source = "line\n{{ raise_exception('no') }}"
    with pytest.raises(RaisedByTemplateError) as caught:
        render(source)
    raised = caught.value.raised
    assert raised.message == "no"
    assert source[raised.offset :].startswith("('no')")
    assert "at line 2, column 19" in place_in_source(source, raised.offset, "CallExpression", "no")


@pytest.mark.parametrize(
    "source", ["{{ ''.__class__.__mro__() }}", "{{ 1 / 0 }}", "{{ missing() }}", "{{ x.update(a=1) }}"]
)
def test_an_expression_that_fails_or_leaves_the_sandbox_raises_one_of_the_known_failures(source):
    with pytest.raises(FAILURES):
        render(source, x={})


def test_attributes_of_python_are_undefined():
    assert render("{{ ''.__class__.__mro__ }}") == ""


def test_a_syntax_error_is_found_when_compiling():
    with pytest.raises(TemplateSyntaxError):
        ChatEnvironment().compiled("{% if %}")
