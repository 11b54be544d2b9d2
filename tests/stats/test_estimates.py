"""Estimates against their textbook formulas and tea-tasting."""

from fractions import Fraction

import numpy as np
import pytest
import tea_tasting as tt
from hypothesis import given, settings
from tea_tasting.aggr import Aggregates

from stream.stats.comparison import compare
from stream.stats.estimates import Estimate, Kind, cuped_mean, estimate, mean, proportion, ratio
from stream.stats.moments import Moments
from stream.stats.reasons import NoInterval
from tests.stats.makers import moments_of_columns, random_arm, seeds

CTR_ARM = Moments(3280, sx=4079, sxx=11005, sy=34114, syy=815456, sxy=77435)


def aggregates_of(arm: Moments) -> Aggregates:
    n = arm.n
    size = n * (n - 1)
    return Aggregates(
        count_=n,
        mean_={"x": arm.sx / n, "y": arm.sy / n, "p": arm.sp / n},
        var_={"x": arm.cxx / size, "y": arm.cyy / size, "p": arm.cpp / size},
        cov_={("x", "y"): arm.cxy / size, ("p", "x"): arm.cxp / size},
    )


@pytest.mark.parametrize(
    ("kind", "oracle"),
    [
        (Kind.MEAN, tt.Mean("x")),
        (Kind.RATIO, tt.RatioOfMeans("x", "y")),
        (Kind.CUPED_MEAN, tt.Mean("x", covariate="p")),
    ],
)
@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_comparisons_are_those_of_tea_tasting(kind: Kind, oracle: tt.RatioOfMeans, seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b = random_arm(random), random_arm(random)
    ours = compare(estimate(kind, a, a + b), estimate(kind, b, a + b))
    theirs = oracle.analyze_aggregates(aggregates_of(a), aggregates_of(b))
    scale = abs(theirs.control) + abs(theirs.treatment)  # theirs is a difference of floats
    assert ours.difference == pytest.approx(theirs.effect_size, rel=1e-10, abs=1e-13 * scale)
    assert ours.fixed_low == pytest.approx(theirs.effect_size_ci_lower, rel=1e-10, abs=1e-12 * scale)
    assert ours.fixed_high == pytest.approx(theirs.effect_size_ci_upper, rel=1e-10, abs=1e-12 * scale)
    assert ours.p_fixed == pytest.approx(theirs.pvalue, rel=1e-8, abs=1e-11)
    assert ours.lift == pytest.approx(theirs.rel_effect_size, rel=1e-10, abs=1e-12)


def test_a_proportion_divides_by_n() -> None:
    assert proportion(Moments(10_000, sx=69)) == Estimate(
        10_000, Fraction(69, 10_000), Fraction(69 * 9_931, 10_000**3)
    )


def test_a_ratio_has_the_variance_of_the_delta_method() -> None:
    found = ratio(CTR_ARM)
    assert isinstance(found, Estimate)
    n, r = 3280, 4079 / 34114
    numerator = (11005 - 4079**2 / n) - 2 * r * (77435 - 4079 * 34114 / n) + r**2 * (815456 - 34114**2 / n)
    assert float(found.value) == r
    assert float(found.variance) == pytest.approx(numerator / ((n - 1) * (34114 / n) ** 2 * n), rel=1e-12)


def test_squares_are_formed_in_wide_integers() -> None:
    random = np.random.default_rng(1)
    x = random.integers(0, 100, 1_000).astype(np.int8)
    wrong, right = int((x * x).sum()), sum(int(value) ** 2 for value in x)
    assert wrong != right
    assert moments_of_columns(x, x).sxx == right


def test_a_ratio_that_is_constant_has_no_variance_left() -> None:
    # Every user clicks a third of the impressions: in floating point a remainder would be left.
    y = np.arange(3, 300_000, 3)
    found = ratio(moments_of_columns(y // 3, y))
    assert found == Estimate(len(y), Fraction(1, 3), Fraction(0))


def test_a_shift_by_a_large_constant_changes_no_variance() -> None:
    x = np.array([1, 2, 3, 4])
    near, far = (mean(Moments(4, int((x + c).sum()), sum(int(v) ** 2 for v in x + c))) for c in (0, 10**9))
    assert isinstance(near, Estimate)
    assert isinstance(far, Estimate)
    assert near.variance == far.variance == Fraction(5, 12)


def test_a_covariate_that_is_the_same_for_all_leaves_the_plain_mean() -> None:
    arm = Moments(4, 10, 30, sp=8, spp=16, sxp=20)
    assert cuped_mean(arm, arm + arm) == mean(arm)


def test_a_covariate_shrinks_the_error_and_keeps_the_effect() -> None:
    random = np.random.default_rng(5)
    p = random.poisson(20, 4_000)
    x = p + random.poisson(3, 4_000)
    a, b = (
        moments_of_columns(x[:2_000], x[:2_000], p[:2_000]),
        moments_of_columns(x[2_000:] + 1, x[2_000:], p[2_000:]),
    )
    plain = compare(mean(a), mean(b))
    adjusted = compare(cuped_mean(a, a + b), cuped_mean(b, a + b))
    assert plain.se is not None
    assert adjusted.se is not None
    assert adjusted.difference is not None
    assert adjusted.se < plain.se / 2
    assert adjusted.difference == pytest.approx(1, abs=4 * adjusted.se)


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_users_have_no_estimate(kind: Kind, n: int) -> None:
    arm = Moments.of_user(1, 1, 1) if n else Moments()
    assert estimate(kind, arm, arm + CTR_ARM) is NoInterval.TOO_FEW_USERS


def test_a_ratio_without_denominator_has_no_estimate() -> None:
    assert ratio(Moments(10)) is NoInterval.NO_DENOMINATOR
