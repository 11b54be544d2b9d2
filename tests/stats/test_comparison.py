import dataclasses
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from stream.stats.comparison import Comparison, compare
from stream.stats.confidence import Confidence
from stream.stats.estimates import Kind, estimate, mean, proportion
from stream.stats.moments import Moments
from stream.stats.reasons import NoInterval
from tests.stats.makers import an_estimate, random_arm, seeds

FIGURES = [f.name for f in dataclasses.fields(Comparison) if f.name != "reason"]


def figures(comparison: Comparison) -> list[float | None]:
    return [getattr(comparison, name) for name in FIGURES]


def test_the_open_bandit_sample_shows_no_winner() -> None:
    found = compare(proportion(Moments(10_000, 46)), proportion(Moments(10_000, 69)))
    assert found.difference == 0.0023
    assert found.se == pytest.approx(0.00106917, abs=5e-9)
    assert (found.fixed_low, found.fixed_high) == pytest.approx((0.0002043, 0.0043957), abs=5e-8)
    assert found.p_fixed == pytest.approx(0.0315, abs=5e-5)
    assert (found.always_low, found.always_high) == pytest.approx((-0.0010434, 0.0056434), abs=5e-8)
    assert found.p_always == pytest.approx(0.607, abs=5e-4)
    assert found.lift == 0.5


@pytest.mark.parametrize(("users", "wider"), [(5_000, 1.55), (90_000, 1.70)])
def test_the_price_of_looking_at_any_time(users: int, wider: float) -> None:
    assert Confidence().always_factor(users) / stats.norm.ppf(0.975) == pytest.approx(wider, abs=0.005)


@settings(max_examples=100, deadline=None)
@given(seed=seeds, alpha=st.floats(0.001, 0.5))
def test_the_fixed_interval_is_welch_s(seed: int, alpha: float) -> None:
    random = np.random.default_rng(seed)
    a, b = random_arm(random), random_arm(random)
    found = compare(mean(a), mean(b), Confidence(alpha))
    welch = stats.ttest_ind_from_stats(
        b.sx / b.n,
        math.sqrt(b.cxx / (b.n * (b.n - 1))),
        b.n,
        a.sx / a.n,
        math.sqrt(a.cxx / (a.n * (a.n - 1))),
        a.n,
        equal_var=False,
    )
    scale = abs(a.sx / a.n) + abs(b.sx / b.n)
    va, vb = (arm.cxx / (arm.n**2 * (arm.n - 1)) for arm in (a, b))
    freedom = (va + vb) ** 2 / (va**2 / (a.n - 1) + vb**2 / (b.n - 1))
    half = math.sqrt(va + vb) * stats.t.ppf(1 - alpha / 2, freedom)
    assert found.difference == pytest.approx(b.sx / b.n - a.sx / a.n, rel=1e-10, abs=1e-13 * scale)
    assert found.fixed_low == pytest.approx(found.difference - half, rel=1e-10, abs=1e-13 * scale)
    assert found.fixed_high == pytest.approx(found.difference + half, rel=1e-10, abs=1e-13 * scale)
    assert found.p_fixed == pytest.approx(welch.pvalue, rel=1e-8, abs=1e-11)


@settings(max_examples=100, deadline=None)
@given(seed=seeds, alpha=st.floats(0.001, 0.5), tuning=st.integers(10, 10**7))
def test_the_always_valid_interval_is_that_of_the_paper(seed: int, alpha: float, tuning: int) -> None:
    random = np.random.default_rng(seed)
    a, b = random_arm(random), random_arm(random)
    found = compare(mean(a), mean(b), Confidence(alpha, tuning))
    n = a.n + b.n
    rho2 = (-2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))) / tuning
    half = found.se * math.sqrt(2 * (n * rho2 + 1) / (n * rho2) * math.log(math.sqrt(n * rho2 + 1) / alpha))
    s2 = n * found.difference**2 / found.se**2
    evidence = rho2 * s2 / (2 * (n * rho2 + 1)) - math.log(n * rho2 + 1) / 2
    assert found.always_low == pytest.approx(found.difference - half, rel=1e-10)
    assert found.always_high == pytest.approx(found.difference + half, rel=1e-10)
    assert found.p_always == pytest.approx(min(1, math.exp(-evidence)), rel=1e-10, abs=1e-300)


def test_the_evidence_is_the_mixture_of_likelihood_ratios() -> None:
    confidence, n, z = Confidence(), 2_000, 3.1
    rho = math.sqrt(confidence.rho2)
    root = math.sqrt(n)

    def at(effect: float) -> float:
        return math.exp(effect * root * z - n * effect**2 / 2) * stats.norm.pdf(effect, scale=rho)

    mixture, _ = integrate.quad(at, -1, 1, points=[0, z / root])
    found = compare(an_estimate(0, 0, n // 2), an_estimate(z, 1, n // 2), confidence)
    assert found.p_always == pytest.approx(1 / mixture, rel=1e-9)


@given(
    st.floats(-6, 6),
    st.integers(2, 10**7),
    st.floats(0.001, 0.5),
    st.integers(1, 10**8),
    st.floats(1e-9, 1e9),
)
def test_the_interval_excludes_0_exactly_when_p_is_below_alpha(
    z: float, n: int, alpha: float, tuning: int, se: float
) -> None:
    found = compare(an_estimate(0, 0, n), an_estimate(z * se, se, n), Confidence(alpha, tuning))
    assert found.p_always is not None
    assert found.always_low is not None
    assert found.always_high is not None
    assume(abs(found.p_always / alpha - 1) > 1e-9)
    assert (found.always_low > 0 or found.always_high < 0) == (found.p_always < alpha)


@given(seeds)
@settings(max_examples=50, deadline=None)
def test_exchanging_the_arms_turns_the_difference_around(seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b = mean(random_arm(random)), mean(random_arm(random))
    there, back = compare(a, b), compare(b, a)
    assert there.difference == -back.difference
    assert there.always_low == -back.always_high
    assert (there.p_fixed, there.p_always) == (back.p_fixed, back.p_always)


def test_the_lift_has_the_interval_of_the_delta_method() -> None:
    a, b, va, vb = 0.2, 0.25, 0.01**2, 0.02**2
    found = compare(an_estimate(a, 0.01, 3_000), an_estimate(b, 0.02, 3_000))
    half = Confidence().always_factor(6_000) * math.sqrt(vb / a**2 + va * b**2 / a**4)
    assert found.lift == pytest.approx(0.25, rel=1e-12)
    assert (found.lift_low, found.lift_high) == pytest.approx((0.25 - half, 0.25 + half), rel=1e-12)


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize(
    ("control", "arm", "reason"),
    [
        (Moments(), Moments(), NoInterval.TOO_FEW_USERS),
        (Moments.of_user(1, 1, 1), Moments(2, 1, 1, 2, 2, 1), NoInterval.TOO_FEW_USERS),
        (Moments(2, 1, 1, 2, 2, 1), Moments.of_user(1, 1, 1), NoInterval.TOO_FEW_USERS),
        (Moments(9, sy=9, syy=9), Moments(9, sy=9, syy=9), NoInterval.NO_VARIANCE),
    ],
)
def test_zero_cells_have_a_reason_and_no_figure(
    kind: Kind, control: Moments, arm: Moments, reason: NoInterval
) -> None:
    both = control + arm
    found = compare(estimate(kind, control, both), estimate(kind, arm, both))
    assert found.reason is reason
    assert figures(found) == [None] * len(FIGURES)


def test_a_control_of_zero_has_a_difference_but_no_lift() -> None:
    found = compare(proportion(Moments(1_000, 0)), proportion(Moments(1_000, 50)))
    assert found.reason is NoInterval.CONTROL_IS_ZERO
    assert found.difference == 0.05
    assert found.fixed_low is not None
    assert found.always_low is not None
    assert (found.lift, found.lift_low, found.lift_high) == (None, None, None)


def test_an_arm_that_collapsed_to_zero_has_every_figure() -> None:
    found = compare(proportion(Moments(10_000, 500)), proportion(Moments(10_000, 0)))
    assert found.reason is None
    assert found.lift == -1
    assert found.always_high is not None
    assert found.always_high < 0


@given(seeds)
@settings(max_examples=50, deadline=None)
def test_no_figure_is_infinite_or_nan(seed: int) -> None:
    random = np.random.default_rng(seed)
    n, m = (int(value) for value in random.integers(2, 6, 2))
    a, b = Moments(n, int(random.integers(0, n + 1))), Moments(m, int(random.integers(0, m + 1)))
    found = compare(proportion(a), proportion(b))
    assert all(value is None or math.isfinite(value) for value in figures(found))
    assert (None in figures(found)) == (found.reason is not None)


def test_a_tiny_p_does_not_become_0() -> None:
    found = compare(an_estimate(0, 0.01, 10**6), an_estimate(0.5, 0.01, 10**6))
    assert found.p_fixed is not None
    assert found.p_always is not None
    assert 0 < found.p_fixed < 1e-200
    assert 0 < found.p_always < 1e-200


@pytest.mark.parametrize(("alpha", "tuning"), [(0, 5_000), (1, 5_000), (math.nan, 5_000), (0.05, 0)])
def test_a_promise_that_means_nothing_is_refused(alpha: float, tuning: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        Confidence(alpha, tuning)
