import pytest

from puna.go.template.parser import TemplateSyntaxError, parse


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{{", "template: :1: unclosed action"),
        ("{{ if .A }}", "template: :1: unexpected EOF"),
        ("{{ Prompt }}", 'template: :1: function "Prompt" not defined'),
        ("{{ break }}", "template: :1: {{break}} outside {{range}}"),
        (
            '{{ range .A }}{{ block "b" . }}{{ continue }}{{ end }}{{ end }}',
            "template: :1: {{continue}} outside {{range}}",
        ),
        ("a\n{{\n.A\n", "template: :4: unclosed action started at :2"),
        ("{{ if }}x{{ end }}", "template: :1: missing value for if"),
        ("{{ end }}", "template: :1: unexpected {{end}}"),
        ("{{ if .A }}{{ else }}{{ else }}{{ end }}", "template: :1: expected end; found {{else}}"),
        ("{{ .A | 1 }}", "template: :1: non executable command in pipeline stage 2"),
        ("{{ $x }}", 'template: :1: undefined variable "$x"'),
        ("{{ 1.A }}", 'template: :1: bad number syntax: "1.A"'),
        ("{{ nil.A }}", 'template: :1: unexpected . after term "nil"'),
        ("{{ .A! }}", "template: :1: bad character U+0021 '!'"),
        ("{{ (.A }}", "template: :1: unclosed left paren"),
        ("{{ .A) }}", "template: :1: unexpected right paren"),
        ('{{ "a }}', "template: :1: unterminated quoted string"),
        ("{{ 'ab' }}", "template: :1: malformed character constant: 'ab'"),
        ("{{ 089 }}", 'template: :1: integer overflow: "089"'),
        ("{{/* a */ }}", "template: :1: comment ends before closing delimiter"),
        ("{{ range $a, .B }}{{ end }}", "template: :1: range can only initialize variables"),
        ("{{ $a, $b := .B }}", "template: :1: too many declarations in command"),
        ("{{ a.B \x01 }}", 'template: :1: function "a" not defined'),
        ('{{ template "x" }}', "undefined template specified"),
        (
            '{{ define "a" }}x{{ end }}{{ define "a" }}y{{ end }}',
            'template: :1: template: multiple definition of template "a"',
        ),
        ("{{ if .A }}" * 200, "template: :1: max expression depth exceeded"),
    ],
)
def test_what_is_no_template_is_refused_in_gos_words(text: str, error: str) -> None:
    with pytest.raises(TemplateSyntaxError) as caught:
        parse(text)
    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a {{- .X -}} \n b", "a{{.X}}b"),
        ("a {{- /* gone */ -}} b{{ .Response }}", "ab{{.Response}}"),
        ("{{ -3 }}{{- .Response }}", "{{-3}}{{.Response}}"),
        ("{{if .A}}x{{else if .B}}y{{else}}z{{end}}", "{{if .A}}x{{else}}{{if .B}}y{{else}}z{{end}}{{end}}"),
        ("{{ range $i, $e := .L.M }}{{ $e.X }}{{ end }}", "{{range $i, $e := .L.M}}{{$e.X}}{{end}}"),
        ("{{ (len .X).Y | print 1 `a` }}", "{{(len .X).Y | print 1 `a`}}"),
        ("{{ $x := 1 }}{{ $x = 2 }}", "{{$x := 1}}{{$x = 2}}"),
        ('{{ block "n" .A }}b{{ end }}', '{{template "n" .A}}'),
    ],
)
def test_a_tree_writes_itself_as_go_would(text: str, tree: str) -> None:
    assert str(parse(text).root).removesuffix("{{.Response}}") == tree.removesuffix("{{.Response}}")
