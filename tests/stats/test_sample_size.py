import math

import numpy as np
import pytest
import tea_tasting as tt
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tea_tasting.aggr import Aggregates

from stream.stats.confidence import Confidence
from stream.stats.sample_size import Plan, users_always, users_fixed


def a_plan(difference: float = 0.1, variance: float = 1.0, **others: float) -> Plan:
    return Plan(difference, variance, variance, **others)


def test_the_fixed_size_is_the_textbook_s() -> None:
    # 16 sd^2 / d^2 per arm is the usual rule of thumb for 80 % power; exactly it is 15.7.
    assert users_fixed(a_plan(), Confidence()) == 3_140


def test_the_fixed_size_is_that_of_tea_tasting() -> None:
    data = Aggregates(count_=10_000, mean_={"x": 2.0}, var_={"x": 3.0})
    oracle = tt.Mean("x", effect_size=0.05, use_t=False, power=0.9).solve_power(data, "n_obs")
    assert users_fixed(Plan(0.05, 3, 3, power=0.9), Confidence()) == pytest.approx(oracle[0].n_obs, abs=2)


def test_unequal_arms_need_more_users() -> None:
    assert users_fixed(a_plan(control_share=0.1), Confidence()) == pytest.approx(3_140 * 0.25 / 0.09, abs=2)


def test_a_proportion_is_planned_from_its_rate_and_lift() -> None:
    plan = Plan.of_proportion(0.10, 0.05)
    assert plan.difference == pytest.approx(0.005)
    assert (plan.control_variance, plan.arm_variance) == pytest.approx((0.09, 0.105 * 0.895))


@given(st.floats(0.001, 2), st.floats(0.01, 100), st.floats(0.1, 0.99), st.integers(100, 10**6))
def test_the_always_valid_size_is_the_least_that_reaches_the_power(
    difference: float, variance: float, power: float, tuning: int
) -> None:
    confidence, plan = Confidence(tuning=tuning), a_plan(difference, variance, power=power)
    users = users_always(plan, confidence)

    def reached(n: int) -> float:
        return float(stats.norm.cdf(difference / math.sqrt(plan.spread / n) - confidence.always_factor(n)))

    assert reached(users) >= power - 1e-9
    assert users == 1 or reached(users - 1) <= power + 1e-9


def test_looking_at_any_time_costs_users() -> None:
    assert 2 < users_always(a_plan(0.05), Confidence()) / users_fixed(a_plan(0.05), Confidence()) < 3


def test_a_planned_experiment_has_the_planned_power() -> None:
    confidence, plan = Confidence(), Plan(0.1, 1, 1, power=0.8)
    n = users_always(plan, confidence)
    z = np.random.default_rng(3).normal(plan.difference / math.sqrt(plan.spread / n), 1, 20_000)
    found = float((np.abs(z) > confidence.always_factor(n)).mean())
    assert found == pytest.approx(0.8, abs=4 * math.sqrt(0.16 / 20_000))


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"difference": 0.0}, "difference"),
        ({"variance": -1.0}, "variances"),
        ({"variance": 0.0}, "variances"),
        ({"control_share": 1.0}, "between"),
        ({"power": 0.0}, "between"),
    ],
)
def test_what_cannot_be_planned_is_refused(fields: dict[str, float], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        a_plan(**fields)


def test_a_rate_above_1_is_refused() -> None:
    with pytest.raises(ValueError, match="proportion"):
        Plan.of_proportion(0.9, 0.2)


@pytest.mark.parametrize("size", [users_fixed, users_always])
def test_a_plan_beyond_all_users_is_refused(size: object) -> None:
    with pytest.raises(ValueError, match="more than"):
        size(a_plan(1e-9), Confidence())  # type: ignore[operator]
