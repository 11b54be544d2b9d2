"""Sample ratio mismatch: whether the arms got the users that their planned shares promise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from scipy import special

from stream.stats.confidence import DEFAULT_CONCENTRATION
from stream.stats.moments import Exact
from stream.stats.reasons import NoSampleRatio


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """P-values of the planned shares. p_fixed: for one look; p_sequential: for any number of looks, as of now.

    The usual flag is p < .001. evidence: ln E, p_sequential = min(1, 1 / E) also where that is too small for a float.
    Where there is no test, all are None and `reason` says why.
    """

    p_fixed: float | None = None
    p_sequential: float | None = None
    evidence: float | None = None
    reason: NoSampleRatio | None = None


def sample_ratio(
    users: Sequence[int], shares: Sequence[Exact | float] | None, concentration: Exact = DEFAULT_CONCENTRATION
) -> SampleRatio:
    """Test `users` by arm against `shares` by arm (all above 0, any common scale; None: not declared).

    Count each user once, in the arm of the first assignment, users seen in several arms included. concentration: k of
    the sequential test, about a quarter of the users expected in all. Raises ValueError when the lengths differ or a
    share or the concentration is not above 0.
    """
    return phased_sample_ratio([(users, shares)], concentration)


def phased_sample_ratio(
    phases: Sequence[
        tuple[Sequence[int], Sequence[Exact] | Sequence[float] | Sequence[Exact | float] | None]
    ],
    concentration: Exact = DEFAULT_CONCENTRATION,
) -> SampleRatio:
    """The same where the plan has phases, each with users and shares by arm: a ramp breaks no sample ratio.

    The evidence E of the phases multiplies; their chi-squares and degrees of freedom add up. Phases without declared
    shares, with one arm or without users say nothing.
    """
    reasons, evidence, statistic, freedom = [], 0.0, Fraction(0), 0
    for users, shares in phases:
        reason = _why_not(users, shares)
        if shares is None or reason is not None:
            reasons.append(reason)
            continue
        planned = _as_parts(shares)
        evidence += log_evidence(users, planned, concentration)
        statistic += chi_square(users, planned)
        freedom += len(users) - 1
    if not freedom:
        return SampleRatio(reason=reasons[0] if reasons else NoSampleRatio.NO_USERS)
    p_fixed = float(special.chdtrc(freedom, float(statistic)))
    return SampleRatio(p_fixed, math.exp(-max(evidence, 0.0)), evidence)


def _why_not(users: Sequence[int], shares: Sequence[Exact | float] | None) -> NoSampleRatio | None:
    if shares is None:
        return NoSampleRatio.SHARES_NOT_DECLARED
    if len(users) < 2:
        return NoSampleRatio.ONE_ARM
    return None if any(users) else NoSampleRatio.NO_USERS


def chi_square(users: Sequence[int], shares: Sequence[Fraction]) -> Fraction:
    """Pearson's statistic; shares add up to 1."""
    total = sum(users)
    parts = (
        (count - share * total) ** 2 / (share * total) for count, share in zip(users, shares, strict=True)
    )
    return sum(parts, Fraction(0))


def log_evidence(users: Sequence[int], shares: Sequence[Fraction], concentration: Exact) -> float:
    """ln E of the Dirichlet-multinomial test, whose p-value is min(1, 1 / E); shares add up to 1.

    E = B(k shares + users) / B(k shares) / prod(shares^users), B the multivariate beta function. Lindon, Malek:
    Anytime-valid inference for multinomial count data (NeurIPS 2022). Without the cancellation of its log-gamma
    functions: with Stirling's ln Gamma(z) = (z - 1/2) ln z - z + ln(2 pi) / 2 + s(z), z = k share + users and
    m = share sum(z), the terms in which millions would cancel go away by algebra, and what is left is
        sum(z ln(z / m)) - sum(ln(z / (k share))) / 2 + ln(sum(z) / k) / 2
        + sum(s(z) - s(k share)) - (s(sum(z)) - s(k)).
    """
    if not concentration > 0:
        raise ValueError(f"the concentration must be more than 0, not {concentration}")
    total = sum(users) + concentration
    terms = [
        math.log(total / concentration) / 2,
        stirling_rest(float(concentration)),
        -stirling_rest(float(total)),
    ]
    for count, share in zip(users, shares, strict=True):
        prior = concentration * share
        after = prior + count
        excess = after / (share * total) - 1
        # z ln(z / m) - z + m: the parts added sum to 0 over the arms and leave only small numbers to add.
        terms.append(float(share * total) * _relative_entropy(float(excess)))
        terms.append(-math.log(after / prior) / 2)
        terms.append(stirling_rest(float(after)) - stirling_rest(float(prior)))
    return math.fsum(terms)


def stirling_rest(z: float) -> float:
    """What Stirling's formula lacks, z > 0: ln Gamma(z) - ((z - 1/2) ln z - z + ln(2 pi) / 2), to about 1e-14."""
    if z < 16:
        return math.lgamma(z) - ((z - 0.5) * math.log(z) - z + math.log(2 * math.pi) / 2)
    square = z * z  # Abramowitz, Stegun 6.1.41
    return (1 / 12 - (1 / 360 - (1 / 1260 - (1 / 1680 - 1 / 1188 / square) / square) / square) / square) / z


def _relative_entropy(u: float) -> float:
    return (1 + u) * math.log1p(u) - u


def _as_parts(shares: Sequence[Exact | float]) -> list[Fraction]:
    if not all(share > 0 for share in shares):
        raise ValueError("every share must be more than 0")
    exact = [Fraction(share) for share in shares]
    return [share / sum(exact) for share in exact]
