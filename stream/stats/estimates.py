"""From an arm's moments to the value of a metric and the variance of that value. Users are the units.

Both are exact fractions: a difference of nearly equal arms, and a variance that is a small difference of large
products, lose no digits. Floating point begins in comparison.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from stream.stats.moments import Moments
from stream.stats.reasons import NoInterval

MIN_USERS = 2


class Kind(StrEnum):
    """How a metric is made of the moments."""

    PROPORTION = "proportion"  # share of users with x = 1
    MEAN = "mean"  # x per user
    RATIO = "ratio"  # sum of x over sum of y
    CUPED_MEAN = "cuped_mean"  # x per user, adjusted by what p predicts


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its variance (its standard error squared), from n users.

    doubt: how little is known of the variance, variance^2 / (n - 1) added up over strata; None: one sample, n >= 2.
    """

    n: int
    value: Fraction
    variance: Fraction
    doubt: Fraction | None = None

    @property
    def satterthwaite(self) -> Fraction:
        """This estimate's part of the denominator of Satterthwaite's degrees of freedom."""
        return self.variance**2 / (self.n - 1) if self.doubt is None else self.doubt


def proportion(arm: Moments) -> Estimate | NoInterval:
    """sx / n with variance r (1 - r) / n, the convention of GrowthBook (not n - 1). x is 0 or 1; sxx is not used."""
    if arm.n < MIN_USERS:
        return NoInterval.TOO_FEW_USERS
    share = Fraction(arm.sx, arm.n)
    return _estimate(arm.n, share, share * (1 - share) / arm.n)


def mean(arm: Moments) -> Estimate | NoInterval:
    """sx / n with variance (sxx - sx^2 / n) / ((n - 1) n)."""
    if arm.n < MIN_USERS:
        return NoInterval.TOO_FEW_USERS
    return _estimate(arm.n, Fraction(arm.sx, arm.n), Fraction(arm.cxx, _divisor(arm.n)))


def ratio(arm: Moments) -> Estimate | NoInterval:
    """Sx / sy by the delta method: r = sx / sy, variance = (var x - 2 r cov xy + r^2 var y) / (n (mean y)^2).

    Deng, Knoblich, Lu: Applying the Delta Method in Metric Analytics (KDD 2018).
    """
    if arm.n < MIN_USERS:
        return NoInterval.TOO_FEW_USERS
    if arm.sy == 0:
        return NoInterval.NO_DENOMINATOR
    # The formula's numerator times (n sy)^2, so that one division is left.
    spread = arm.sy**2 * arm.cxx - 2 * arm.sx * arm.sy * arm.cxy + arm.sx**2 * arm.cyy
    return _estimate(arm.n, Fraction(arm.sx, arm.sy), Fraction(spread, (arm.n - 1) * arm.sy**4))


def cuped_mean(arm: Moments, both: Moments) -> Estimate | NoInterval:
    """Mean of x minus theta (mean p - mean p of both), variance var x + theta^2 var p - 2 theta cov xp.

    both: the users of arm and control together as one sample; theta = cov(x, p) / var(p) among them, and 0 where p is
    the same for all, which leaves the plain mean. Deng, Xu, Kohavi, Walker: Improving the Sensitivity of Online
    Controlled Experiments by Utilizing Pre-Experiment Data (WSDM 2013).
    """
    if arm.n < MIN_USERS:
        return NoInterval.TOO_FEW_USERS
    theta = Fraction(both.cxp, both.cpp) if both.cpp else Fraction(0)
    value = Fraction(arm.sx, arm.n) - theta * (Fraction(arm.sp, arm.n) - Fraction(both.sp, both.n))
    spread = arm.cxx + theta**2 * arm.cpp - 2 * theta * arm.cxp
    return _estimate(arm.n, value, Fraction(spread, _divisor(arm.n)))


def estimate(kind: Kind, arm: Moments, both: Moments) -> Estimate | NoInterval:
    """The estimate of that kind. both: arm and control together; only `cuped_mean` uses it."""
    match kind:
        case Kind.PROPORTION:
            return proportion(arm)
        case Kind.MEAN:
            return mean(arm)
        case Kind.RATIO:
            return ratio(arm)
        case Kind.CUPED_MEAN:
            return cuped_mean(arm, both)


def stratified(strata: Sequence[tuple[int, Estimate]]) -> Estimate:
    """One estimate from those of unlike periods or groups, each with its weight (any common scale, not all 0).

    value = sum w r, variance = sum w^2 var, with the weights scaled to 1. Two arms get the same weights, so that an arm
    that had most of its users in a good week is not called better for it (Simpson's paradox).
    """
    total = sum(weight for weight, _ in strata)
    parts = [(Fraction(weight, total), estimate) for weight, estimate in strata]
    return Estimate(
        sum(estimate.n for _, estimate in parts),
        sum((w * estimate.value for w, estimate in parts), Fraction(0)),
        sum((w**2 * estimate.variance for w, estimate in parts), Fraction(0)),
        sum((w**4 * estimate.satterthwaite for w, estimate in parts), Fraction(0)),
    )


def _divisor(n: int) -> int:
    return n * n * (n - 1)


def _estimate(n: int, value: Fraction, variance: Fraction) -> Estimate:
    # Sums that were rounded before they came here can leave a variance just below 0.
    return Estimate(n, value, max(variance, Fraction(0)))
