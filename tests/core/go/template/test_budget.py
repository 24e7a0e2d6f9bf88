import math

import pytest

from puna.go.template.budget import Budget, BudgetSpentError
from puna.go.template.parser import parse
from puna.go.template.values import Boxed


def test_the_last_unit_may_be_spent_and_no_more():
    budget = Budget(2)
    budget.spend(2)
    with pytest.raises(BudgetSpentError):
        budget.spend(1)


def test_a_run_without_a_budget_is_unbounded():
    budget = Budget()
    budget.spend(10**12)
    budget.call("printf", ["%99999d", 1])
    assert budget.left == math.inf


@pytest.mark.parametrize(
    ("value", "cost"), [("x" * 1024, 4), ("x", 0), (True, 0), (3.5, 0), (None, 0), ([1], 70), ({"a": 1}, 70)]
)
def test_printing_costs_by_length_and_structures_cost_all_data_in_reach(value, cost):
    budget = Budget(100, bulk=70)
    budget.print(value)
    assert budget.left == 100 - cost


@pytest.mark.parametrize(
    ("name", "arguments", "cost"),
    [
        ("eq", ["x" * 512, "y" * 512], 4),
        ("eq", [Boxed("x" * 1024)], 4),
        ("json", ["x" * 160], 10),
        ("json", [[1]], 50),
        ("printf", ["%s", "x" * 14], 2 * (1016 >> 4)),
        ("printf", ["%d%d", 1, [2]], 3 * ((1004 >> 4) + 50)),
    ],
)
def test_a_call_is_charged_before_it_runs(name, arguments, cost):
    budget = Budget(1000, bulk=50)
    budget.call(name, arguments)
    assert budget.left == 1000 - cost


@pytest.mark.parametrize("form", ["%1000d", "%.99999f", "%*d"])
def test_a_wide_printf_exceeds_every_budget(form):
    with pytest.raises(BudgetSpentError):
        Budget(10**9).call("printf", [form, 1])


@pytest.mark.parametrize(
    "text",
    [
        "{{ range 100000000 }}{{ end }}",
        "{{ range 100000 }}{{ . }}{{ end }}",
        # Each of twenty templates calls the next one twice.
        "".join(
            f'{{{{ define "{i}" }}}}{{{{ template "{i + 1}" . }}}}{{{{ template "{i + 1}" . }}}}{{{{ end }}}}'
            for i in range(20)
        )
        + '{{ define "20" }}x{{ end }}{{ template "0" . }}',
        "{{ range .L }}{{ range $.L }}{{ json $.L }}{{ end }}{{ end }}",
    ],
)
def test_templates_that_do_not_end_in_time_run_out_of_budget(text):
    data = {"L": list(range(50)), "Response": ""}
    with pytest.raises(BudgetSpentError):
        parse(text + "{{ .Response }}").execute(data, budget=Budget(20_000, bulk=50))
