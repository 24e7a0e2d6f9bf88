import pytest

from puna.errors import TemplateError
from puna.go.template.budget import Budget, BudgetSpentError
from puna.go.template.parser import parse
from puna.go.template.values import Field, Pointer, StructType

POINT = StructType("api.Point", (Field("X"),))
DATA = {"L": ["a", "b", "c"], "E": [], "M": {"y": 1, "x": None}, "S": "text", "P": Pointer(None, "api.Point")}


def run(text, **more):
    return parse(text + "{{ .Response }}").execute({**DATA, "Response": ""}, **more)


@pytest.mark.parametrize(
    ("text", "out"),
    [
        ("{{ range $i, $e := .L }}{{ $i }}{{ $e }}{{ end }}", "0a1b2c"),
        ("{{ $i := 9 }}{{ $e := 9 }}{{ range $i, $e = .L }}{{ end }}{{ $i }}{{ $e }}", "2c"),
        ("{{ $x := 1 }}{{ range .L }}{{ $x := . }}{{ end }}{{ $x }}", "1"),
        ("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ $x := 3 }}{{ end }}{{ $x }}", "2"),
        ("{{ range $k, $v := .M }}{{ $k }}:{{ $v }} {{ end }}", "x:<no value> y:1 "),
        ("{{ range .P }}x{{ else }}nil{{ end }}", "nil"),
        ("{{ range -3 }}x{{ else }}none{{ end }}", "none"),
        ("{{ range $i := 2 }}{{ $i }}{{ end }}", "01"),
        ("{{ range .L }}{{ if eq . `b` }}{{ break }}{{ end }}{{ . }}{{ end }}!", "a!"),
        ("{{ range .L }}{{ range $.L }}{{ break }}{{ end }}{{ . }}{{ end }}", "abc"),
        ("{{ range .L }}{{ range $.E }}{{ else }}{{ break }}{{ end }}{{ . }}{{ end }}", "abc"),
        ("{{ range .L }}{{ range $.E }}{{ else }}{{ continue }}{{ end }}{{ . }}{{ end }}", ""),
        ("{{ with .E }}x{{ else }}{{ len .L }}{{ end }}", "3"),
        ("{{ with $x := .S }}{{ $x }}{{ . }}{{ end }}", "texttext"),
        ('{{ define "t" }}{{ . }}{{ end }}{{ template "t" .S }}', "text"),
    ],
)
def test_control_flow(text, out):
    assert run(text) == out


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{{ range $i, $e := 3 }}{{ end }}", "can't use 3 to iterate over more than one variable"),
        ("{{ range true }}{{ end }}", "range can't iterate over true"),
        ("{{ range 1.5 }}{{ end }}", "range can't iterate over 1.5"),
        ('{{ template "no" . }}', 'template "no" not defined'),
    ],
)
def test_errors(text, error):
    with pytest.raises(TemplateError) as caught:
        run(text)
    assert str(caught.value).endswith(error)


def test_each_round_of_a_loop_is_charged():
    run("{{ range 90 }}x{{ end }}", budget=Budget(400))
    with pytest.raises(BudgetSpentError):
        run("{{ range 400 }}x{{ end }}", budget=Budget(400))
