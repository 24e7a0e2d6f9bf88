import pytest

from puna.errors import TemplateError
from puna.go.template.budget import Budget
from puna.go.template.fields import follow
from puna.go.template.run import Run
from puna.go.template.values import MISSING, Boxed, ContainerType, Field, Map, Pointer, Struct, StructType

POINT = StructType("api.Point", (Field("X"), Field("Next")), {"Norm": lambda point: str(point.values["X"])})
FAR = Struct(POINT, 9, None)
NEAR = Struct(POINT, 1, Pointer(FAR, "api.Point"))
COUNTS = Map(ContainerType("map[string]int", zero=lambda: 0), {"a": 1})


def a_run(*, lenient=False, budget=None):
    return Run(
        name="",
        source="",
        out=[],
        data={},
        functions={},
        steps=lambda _: None,
        lenient=lenient,
        budget=budget or Budget(),
    )


@pytest.mark.parametrize(
    ("receiver", "path", "value"),
    [
        (NEAR, ["X"], 1),
        (NEAR, ["Next", "X"], 9),
        (Pointer(NEAR, "api.Point"), ["X"], 1),
        (NEAR, ["Norm"], "1"),
        ({"A": {"B": 3}}, ["A", "B"], Boxed(3)),
        ({"A": 1}, ["Z"], Boxed(None)),
        (COUNTS, ["a"], 1),
        (COUNTS, ["z"], 0),
        (MISSING, ["A", "B"], MISSING),
    ],
)
def test_paths(receiver, path, value):
    assert follow(a_run(), receiver, path, 0) == value


def test_a_lenient_run_has_no_value_for_a_missing_key():
    assert follow(a_run(lenient=True), {"A": 1}, ["Z", "Y"], 0) is MISSING


@pytest.mark.parametrize(
    ("receiver", "path", "arguments", "text"),
    [
        ({"A": 1}, ["Z", "Y"], 0, "nil pointer evaluating interface {}.Y"),
        ({"A": 1}, ["A", "B"], 0, "can't evaluate field B in type interface {}"),
        ("text", ["B"], 0, "can't evaluate field B in type string"),
        (NEAR, ["Y"], 0, "can't evaluate field Y in type api.Point"),
        (NEAR, ["X"], 1, "X has arguments but cannot be invoked as function"),
        ({"A": 1}, ["A"], 1, "A is not a method but has arguments"),
        (NEAR, ["Norm"], 2, "wrong number of args for Norm: want 0 got 2"),
    ],
)
def test_errors(receiver, path, arguments, text):
    with pytest.raises(TemplateError) as caught:
        follow(a_run(), receiver, path, arguments)
    assert str(caught.value) == f"template: : {text}"


def test_a_method_may_read_all_data_and_costs_as_much():
    budget = Budget(100, bulk=40)
    follow(a_run(budget=budget), NEAR, ["Norm"], 0)
    assert budget.left == 60
