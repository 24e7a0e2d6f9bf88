import pytest

from puna.go.template.nodes import BranchNode, FieldNode, NumberNode, StringNode, VariableNode, children, is_empty
from puna.go.template.parser import parse


@pytest.mark.parametrize(
    "text",
    [
        "text {{.A.B}} more",
        "{{$.A}}",
        "{{\"quoted\\n\" | print `raw` 1_0 'x' nil true .}}",
        "{{(index .A 1).B.C}}",
        "{{if eq .A (len .B)}}x{{else}}y{{end}}",
        "{{with $x := .A}}{{$x}}{{end}}",
        "{{range $i, $e := .A}}{{break}}{{continue}}{{end}}",
        "{{range .A}}x{{else}}none{{end}}",
    ],
)
def test_canonical_source_comes_back_as_it_is(text):
    assert str(parse(text + "{{.Response}}").root) == text + "{{.Response}}"


def test_nodes_know_where_they_stand_and_what_they_hold():
    action, branch = parse("é{{ .A | print 3 `b` $ }}{{ range .L }}{{ end }}{{ .Response }}").root.nodes[1:3]
    field = action.pipe.commands[0].arguments[0]
    assert isinstance(field, FieldNode)
    assert (field.path, field.position) == (("A",), 4)
    _, number, quoted, variable = action.pipe.commands[1].arguments
    assert isinstance(number, NumberNode)
    assert number.integer == 3
    assert isinstance(quoted, StringNode)
    assert (quoted.text, quoted.quoted) == ("b", "`b`")
    assert isinstance(variable, VariableNode)
    assert variable.path == ("$",)
    assert isinstance(branch, BranchNode)
    assert branch.word == "range"
    assert branch.otherwise is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{{if .A}}x{{end}}", [".A", "x"]),
        ("{{if .A}}x{{else}}y{{end}}", [".A", "x", "y"]),
        ("{{print .A | len}}", ["print .A | len"]),
        ('{{template "t" .A}}', [".A"]),
        ("{{break}}", []),
    ],
)
def test_children_come_conditions_first(text, found):
    tree = parse("{{range .L}}" + text + '{{end}}{{define "t"}}x{{end}}{{.Response}}').root.nodes[0].body
    assert [str(each) for each in children(tree.nodes[0])] == found


@pytest.mark.parametrize(
    ("text", "empty"), [(" \n\u3000", True), ("x", False), ("{{.A}}", False), ("", True), ("\x1f", False)]
)
def test_a_tree_of_white_space_is_empty(text, empty):
    assert is_empty(parse("{{if .Response}}" + text + "{{end}}").root.nodes[0].body) is empty
