import pytest

from puna.errors import TemplateError
from puna.go.template.functions import FUNCTIONS
from puna.go.template.operands import size
from puna.go.template.parser import parse

DATA = {"A": "a", "L": [1], "N": None, "M": {"B": {"C": 2}}, "Response": ""}


def run(text, **more):
    return parse("{{ " + text + " }}{{ .Response }}").execute(DATA, **more)


@pytest.mark.parametrize(
    ("text", "out"),
    [
        ("0x10", "16"),
        ("1e2", "100"),
        ("0x1p4", "16"),
        ("'a'", "97"),
        ("2.0", "2"),
        ("9223372036854775807", "9223372036854775807"),
        ("(.M.B).C", "2"),
        ("$.M.B.C", "2"),
        ("`x` | print .A", "ax"),
        (".A | print `x` | len", "2"),
        ("or .N 0 .A (index .L 9)", "a"),
        ("and .N (index .L 9)", "<no value>"),
        ("and .A .L", "[1]"),
        (".N | or 0", "<no value>"),
        ("print nil", "<nil>"),
        ("eq nil .N", "true"),
    ],
)
def test_values_and_the_operands_that_are_not_evaluated(text, out):
    assert run(text) == out


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("9223372036854775808", "at <9223372036854775808>: 9223372036854775808 overflows int"),
        ("printf nil", "at <nil>: cannot assign nil to string"),
        ("printf .L", "at <.L>: wrong type for value; expected string; got []interface {}"),
        ("printf .N.B", "at <.N.B>: nil pointer evaluating interface {}.B"),
        ("true | len | .A", "at <len>: error calling len: len of type bool"),
        (".A | $", "at <$>: can't give argument to non-function $"),
        ("(.A) 1", "at <(.A) 1>: can't give argument to non-function .A"),
        ("index", "at <index>: wrong number of args for index: want at least 1 got 0"),
        (".A | len | not 1", "at <not>: wrong number of args for not: want 1 got 2"),
    ],
)
def test_errors_name_the_operand(text, error):
    with pytest.raises(TemplateError) as caught:
        run(text)
    assert str(caught.value).endswith(error), str(caught.value)


def test_a_template_calls_only_the_functions_it_is_given():
    fewer = {name: each for name, each in FUNCTIONS.items() if name != "json"}
    with pytest.raises(TemplateError, match='"json" is not a defined function'):
        run("json .A", functions=fewer)


@pytest.mark.parametrize(("text", "steps"), [(".A", 1), (".A.B.C", 3), ("$x := .A", 2), ("print (.A.B).C 1", 5)])
def test_the_size_bounds_the_steps_of_a_pipeline(text, steps):
    assert size(parse("{{ " + text + " }}{{ .Response }}").root.nodes[0].pipe) == steps
