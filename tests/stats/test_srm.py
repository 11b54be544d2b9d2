import math
from fractions import Fraction

import numpy as np
import pytest
import tea_tasting as tt
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from tea_tasting.aggr import Aggregates

from stream.stats.reasons import NoSampleRatio
from stream.stats.srm import SampleRatio, log_evidence, phased_sample_ratio, sample_ratio, stirling_rest

HALVES = [Fraction(1, 2)] * 2
counts = st.lists(st.integers(0, 20_000), min_size=2, max_size=6).filter(any)


@pytest.mark.parametrize(("users", "p"), [((345_543, 344_660), 0.288), ((28_378, 28_325), 0.824)])
def test_published_sample_ratios(users: tuple[int, int], p: float) -> None:
    assert sample_ratio(users, HALVES).p_fixed == pytest.approx(p, abs=5e-4)


@given(counts, st.data())
def test_the_fixed_test_is_the_chi_square_of_scipy(users: list[int], data: st.DataObject) -> None:
    parts = data.draw(st.lists(st.integers(1, 9), min_size=len(users), max_size=len(users)))
    expected = np.array(parts) / sum(parts) * sum(users)
    oracle = stats.chisquare(users, expected).pvalue
    assert sample_ratio(users, parts).p_fixed == pytest.approx(oracle, rel=1e-10, abs=1e-290)


def test_two_arms_are_the_normal_test_of_tea_tasting() -> None:
    oracle = tt.SampleRatio(ratio=2, method="norm", correction=False).analyze(
        {"a": Aggregates(count_=1_050), "b": Aggregates(count_=1_950)}, "a", "b"
    )
    assert sample_ratio([1_050, 1_950], [1, 2]).p_fixed == pytest.approx(oracle.pvalue, rel=1e-10)


@given(counts, st.data(), st.integers(1, 10_000))
@settings(deadline=None, max_examples=50)
def test_the_evidence_is_a_product_over_users(
    users: list[int], data: st.DataObject, concentration: int
) -> None:
    # Gamma(a + c) / Gamma(a) = a (a + 1) ... (a + c - 1): no gamma function, so no cancellation.
    parts = data.draw(st.lists(st.integers(1, 9), min_size=len(users), max_size=len(users)))
    shares = [Fraction(part, sum(parts)) for part in parts]
    priors = [float(concentration * share) for share in shares]
    terms = [
        np.log((prior + np.arange(count)) / share)
        for prior, share, count in zip(priors, map(float, shares), users, strict=True)
    ]
    terms.append(-np.log(concentration + np.arange(sum(users))))
    oracle = math.fsum(value for part in terms for value in part)
    assert log_evidence(users, shares, concentration) == pytest.approx(oracle, rel=1e-10, abs=1e-9)


@given(counts)
def test_the_evidence_is_a_ratio_of_beta_functions(users: list[int]) -> None:
    share, k = Fraction(1, len(users)), 2_000
    prior, after = np.full(len(users), k / len(users)), np.array(users) + k / len(users)

    def log_beta(a: np.ndarray) -> float:
        return float(special.gammaln(a).sum() - special.gammaln(a.sum()))

    oracle = log_beta(after) - log_beta(prior) + sum(users) * math.log(len(users))
    assert log_evidence(users, [share] * len(users), k) == pytest.approx(oracle, rel=1e-8, abs=1e-8)


def test_the_evidence_keeps_its_digits_for_a_billion_users() -> None:
    # Two arms as planned: E = B(a + n, a + n) / B(a, a) 4^n with a = 1,000 tends to sqrt(a / (a + n)).
    a, n = 1_000, 500_000_000
    limit = math.log(a / (a + n)) / 2 + (1 / (a + n) - 1 / a) / 8
    assert log_evidence([n, n], HALVES, 2 * a) == pytest.approx(limit, rel=0, abs=1e-10)


@pytest.mark.parametrize("z", [1e-6, 0.5, 1, 15.999, 16, 30.5, 1e3, 1e12])
def test_what_stirling_lacks(z: float) -> None:
    stirling = (z - 0.5) * math.log(z) - z + math.log(2 * math.pi) / 2
    assert stirling_rest(z) == pytest.approx(
        math.lgamma(z) - stirling, rel=0, abs=max(1e-13, 1e-15 * abs(stirling))
    )


def test_a_ratio_as_planned_is_never_suspicious() -> None:
    found = sample_ratio([5_000, 5_000], HALVES)
    assert (found.p_fixed, found.p_sequential) == (1, 1)


def test_a_broken_ratio_is_found() -> None:
    found = sample_ratio([50_000, 48_000], [0.5, 0.5])
    assert found.p_fixed is not None
    assert found.p_sequential is not None
    assert 0 < found.p_fixed < found.p_sequential < 0.001


def test_shares_may_have_any_scale() -> None:
    assert sample_ratio([10, 30], [1, 2]) == sample_ratio([10, 30], [Fraction(1, 3), Fraction(2, 3)])


@pytest.mark.parametrize(
    ("users", "shares", "reason"),
    [
        ([1, 2], None, NoSampleRatio.SHARES_NOT_DECLARED),
        ([5], [1], NoSampleRatio.ONE_ARM),
        ([0, 0], [1, 1], NoSampleRatio.NO_USERS),
    ],
)
def test_where_there_is_no_test_there_is_a_reason(
    users: list[int], shares: list[int] | None, reason: NoSampleRatio
) -> None:
    assert sample_ratio(users, shares) == SampleRatio(reason=reason)


def test_what_cannot_be_tested_is_refused() -> None:
    with pytest.raises(ValueError, match="share must be more than 0"):
        sample_ratio([1, 2], [1, 0])
    with pytest.raises(ValueError, match="concentration must be more than 0"):
        sample_ratio([1, 2], [1, 1], 0)
    with pytest.raises(ValueError, match="argument 2 is longer"):
        sample_ratio([1, 2], [1, 1, 1])


def test_the_evidence_of_phases_multiplies_and_their_chi_squares_add() -> None:
    early, late = ([9_950, 50], [Fraction(99, 100), Fraction(1, 100)]), ([5_150, 4_850], HALVES)
    found = phased_sample_ratio([early, late, ([0, 0], HALVES), ([3, 9], None)], 2_000)
    evidence = sum(log_evidence(users, shares, 2_000) for users, shares in (early, late))
    assert found.evidence == pytest.approx(evidence, rel=1e-12)
    assert found.p_sequential == pytest.approx(math.exp(-evidence), rel=1e-12)
    statistic = sum(
        stats.chisquare(users, np.array([float(share) for share in shares]) * sum(users)).statistic
        for users, shares in (early, late)
    )
    assert found.p_fixed == pytest.approx(stats.chi2.sf(statistic, 2), rel=1e-10)


def test_phases_without_anything_to_test_say_why() -> None:
    assert phased_sample_ratio([]).reason is NoSampleRatio.NO_USERS
    assert phased_sample_ratio([([3, 9], None)]).reason is NoSampleRatio.SHARES_NOT_DECLARED
