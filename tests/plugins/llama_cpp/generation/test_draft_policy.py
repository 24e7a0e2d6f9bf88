import pytest

from puna_llama_cpp.generation.draft_policy import AcceptanceRates, StepCosts


def test_the_cost_of_a_draft_token_is_what_it_adds_to_a_step():
    costs = StepCosts()
    assert 0 < costs.row_share() < 1
    costs.observe(1, 0, 10.0)
    for _ in range(20):
        costs.observe(1, 4, 14.0)
    assert costs.row_share() == pytest.approx(0.1)


def test_a_few_slow_steps_do_not_count():
    costs = StepCosts()
    for _ in range(7):
        costs.observe(2, 0, 10.0)
        costs.observe(2, 1, 11.0)
    costs.observe(2, 0, 100.0)
    costs.observe(2, 1, 1000.0)
    assert costs.row_share() < 0.3


def test_costs_that_were_measured_long_ago_do_not_count():
    costs = StepCosts()
    assumed = costs.row_share()
    costs.observe(1, 0, 10.0)
    for _ in range(20):
        costs.observe(1, 1, 30.0)
    assert costs.row_share() == pytest.approx(2)
    for _ in range(200):
        costs.observe(1, 0, 30.0)
    assert costs.row_share() == assumed


def test_a_draft_token_is_never_free():
    costs = StepCosts()
    costs.observe(2, 0, 10.0)
    for _ in range(20):
        costs.observe(2, 4, 9.0)
    assert costs.row_share() > 0


def test_rates_follow_what_is_accepted():
    rates = AcceptanceRates()
    first = rates[0], rates[1]
    for _ in range(200):
        rates.observe(0, accepted=False)
    assert rates[0] < 0.05
    assert rates[1] == first[1]
    for _ in range(200):
        rates.observe(0, accepted=True)
    assert rates[0] > 0.9


def test_a_kind_of_draft_that_does_not_pay_is_probed_now_and_then():
    rates = AcceptanceRates()
    probes = [rates.probe(0) for _ in range(320)]
    assert not probes[0]
    assert sum(probes) == 10
