import pytest

from puna.errors import TemplateError
from puna.go.template.budget import Budget
from puna.go.template.nodes import FieldNode
from puna.go.template.run import Run


def a_run(source=""):
    return Run(
        name='a "b"',
        source=source,
        out=[],
        data="data",
        functions={},
        steps=lambda _: None,
        lenient=False,
        budget=Budget(100),
    )


def test_the_innermost_variable_of_a_name_is_meant():
    run = a_run()
    run.variables += [["$x", 1], ["$x", 2]]
    assert run.variable("$") == "data"
    assert run.variable("$x") == 2
    run.assign("$x", 3)
    assert run.variables[1:] == [["$x", 1], ["$x", 3]]


@pytest.mark.parametrize("use", [lambda run: run.variable("$y"), lambda run: run.assign("$y", 1)])
def test_an_undefined_variable_is_an_error(use):
    with pytest.raises(TemplateError, match=r"^template: : undefined variable: \$y$"):
        use(a_run())


def test_a_called_template_sees_its_own_data_and_writes_to_the_same_output():
    run = a_run()
    run.variables.append(["$x", 1])
    nested = run.nested("t", "inner")
    assert nested.variables == [["$", "inner"]]
    assert nested.out is run.out
    assert nested.budget is run.budget


def test_an_error_counts_lines_from_one_and_columns_in_bytes_from_zero():
    run = a_run("one\né{{ .A }}")
    run.node = FieldNode(position=8, path=("A",))
    assert str(run.error("no")) == r'template: :2:5: executing "a \"b\"" at <.A>: no'
