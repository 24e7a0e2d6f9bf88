import pytest

from puna.errors import TemplateError
from puna.go.template.parser import parse

DATA = {"A": "é&", "L": [1.0, 2.5, None, ["x"]], "M": {"b": 2.0, "a": True}, "Response": "", "N": 3, "E": []}


def run(text: str) -> str:
    return parse(text + "{{ .Response }}").execute(DATA)


@pytest.mark.parametrize(
    ("text", "out"),
    [
        ("{{ .A }}{{ .Nope }}{{ .L }}{{ .M }}", "é&<no value>[1 2.5 <nil> [x]]map[a:true b:2]"),
        ("{{ range $k, $v := .M }}{{ $k }}={{ $v }};{{ end }}", "a=true;b=2;"),
        ("{{ range 3 }}{{ . }}{{ else }}none{{ end }}{{ range .E }}x{{ else }}none{{ end }}", "012none"),
        ("{{ range .L }}{{ if eq . 2.5 }}{{ continue }}{{ end }}{{ if not . }}{{ break }}{{ end }}{{ . }}{{ end }}",
         "1"),
        ("{{ $x := 1 }}{{ range .L }}{{ $x = . }}{{ end }}{{ $x }}", "[x]"),
        ("{{ with .A }}{{ . }}{{ $.N }}{{ end }}{{ with .E }}x{{ else with .N }}{{ . }}{{ end }}", "é&33"),
        ('{{ define "t" }}<{{ . }}{{ $ }}>{{ end }}{{ template "t" .N }}{{ block "u" .A }}{{ . }}{{ end }}', "<33>é&"),
        ("{{ len .A }}{{ len .L }}{{ index .L 3 0 }}{{ index .M `b` }}{{ index .M `z` }}", "34x2<no value>"),
        ('{{ slice .A 2 }}{{ slice .L 1 2 }}{{ slice "abc" 1 }}{{ slice .A 0 1 }}', "&[2.5]bc\ufffd"),
        ("{{ slice .A 0 1 }}{{ slice .A 1 2 }}", "é"),
        ("{{ or .Nope .A }}{{ and .A 0 1 }}{{ not .E }}{{ eq .A `y` `x` | not }}", "é&0truetrue"),
        ("{{ lt 1 2 }}{{ le 2.5 2.5 }}{{ gt `b` `a` }}{{ ge 1 2 }}{{ ne .A .A }}", "truetruetruefalsefalse"),
        ("{{ json .M }}{{ json .A }}{{ json .L }}{{ json .Nope }}", '{"a":true,"b":2}"é\\u0026"[1,2.5,null,["x"]]null'),
        ("{{ print 1 2 .A 3 }}{{ println .N }}{{ html `<'>` }}{{ js `a='b'` }}",
         "1 2é&33\n&lt;&#39;&gt;a\\u003D\\'b\\'"),
        ("{{ urlquery .A `b c` }}", "%C3%A9%26b+c"),
        ('{{ printf "%5d|%-4s|%q|%v|%x|%06.2f|%T|%t" 42 "ab" "q" .L "hi" 3.14159 .M true }}',
         '   42|ab  |"q"|[1 2.5 <nil> [x]]|6869|003.14|map[string]interface {}|true'),
        ('{{ printf "%d %s" "x" }}{{ printf "a" 1 }}', "%!d(string=x) %!s(MISSING)a%!(EXTRA int=1)"),
        ("{{ 1e6 }} {{ 0x10 }} {{ 'a' }} {{ 1_000 }} {{ 010 }} {{ 1e3 }} {{ 2i }}", "1e+06 16 97 1000 8 1000 (0+2i)"),
        ("{{ `a` | printf `%s%s` `b` }}{{ .A | len | print `n` }}", "ban3"),
    ],
)  # fmt: skip
def test_templates_say_what_go_would_say(text: str, out: str) -> None:
    assert run(text) == out


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("\n {{ .A.B }}", ':2:6: executing "" at <.A.B>: can\'t evaluate field B in type interface {}'),
        ("{{ .Nope.B }}", ':1:8: executing "" at <.Nope.B>: nil pointer evaluating interface {}.B'),
        ("é{{ (.A).B }}", ':1:6: executing "" at <.A>: can\'t evaluate field B in type string'),
        ("{{ index .L 9 }}", ':1:3: executing "" at <index .L 9>: error calling index: index out of range: 9'),
        ("{{ range .A }}{{ end }}", ':1:9: executing "" at <.A>: range can\'t iterate over é&'),
        ("{{ eq .A 1 }}",
         ':1:3: executing "" at <eq .A 1>: error calling eq: incompatible types for comparison: string and int'),
        ("{{ len 3 }}", ':1:3: executing "" at <len 3>: error calling len: len of type int'),
        ("{{ json }}", ':1:3: executing "" at <json>: wrong number of args for json: want 1 got 0'),
        ("{{ printf 1 }}", ':1:10: executing "" at <1>: expected string; found 1'),
        ("{{ .A 1 }}", ':1:3: executing "" at <.A>: A is not a method but has arguments'),
        ("{{ 1 2 }}", ':1:3: executing "" at <1>: can\'t give argument to non-function 1'),
        ("{{ nil }}", ':1:3: executing "" at <nil>: nil is not a command'),
        ("{{ call .A }}", ':1:3: executing "" at <call .A>: error calling call: non-function .A of type string'),
        ('{{ template "t" . }}', ':1:12: executing "" at <{{template "t" .}}>: template "t" not defined'),
        ('{{ define "t" }}{{ .B.C }}{{ end }}{{ template "t" .A }}',
         ':1:21: executing "t" at <.B.C>: can\'t evaluate field B in type string'),
    ],
)  # fmt: skip
def test_errors_are_laid_where_go_lays_them(text: str, error: str) -> None:
    with pytest.raises(TemplateError) as caught:
        run(text)
    assert str(caught.value) == f"template: {error}"


def test_a_template_that_calls_itself_forever_is_an_error() -> None:
    with pytest.raises(TemplateError, match="exceeded maximum template depth"):
        run('{{ define "t" }}{{ template "t" . }}{{ end }}{{ template "t" . }}')
