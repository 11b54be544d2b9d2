"""Sample ratio mismatch: whether the arms got the users that their planned shares promise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from scipy import special

from stream.stats.moments import Exact
from stream.stats.reasons import NoSampleRatio

DEFAULT_CONCENTRATION = 2_000


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """P-values of the planned shares. p_fixed: for one look; p_sequential: for any number of looks, as of now.

    The usual flag is p < .001. Where there is no test, both are None and `reason` says why.
    """

    p_fixed: float | None = None
    p_sequential: float | None = None
    reason: NoSampleRatio | None = None


def sample_ratio(
    users: Sequence[int], shares: Sequence[Exact | float] | None, concentration: Exact = DEFAULT_CONCENTRATION
) -> SampleRatio:
    """Test `users` by arm against `shares` by arm (all above 0, any common scale; None: not declared).

    Count each user once, in the arm of the first assignment, users seen in several arms included. concentration: k of
    the sequential test, about a quarter of the users expected in all. Raises ValueError when the lengths differ or a
    share or the concentration is not above 0.
    """
    if shares is None:
        return SampleRatio(reason=NoSampleRatio.SHARES_NOT_DECLARED)
    if len(users) < 2:
        return SampleRatio(reason=NoSampleRatio.ONE_ARM)
    if not any(users):
        return SampleRatio(reason=NoSampleRatio.NO_USERS)
    planned = _as_parts(shares)
    return SampleRatio(chi_square_p(users, planned), sequential_p(users, planned, concentration))


def chi_square_p(users: Sequence[int], shares: Sequence[Fraction]) -> float:
    """Pearson's chi-square with k - 1 degrees of freedom; shares add up to 1."""
    total = sum(users)
    statistic = sum(
        (count - share * total) ** 2 / (share * total) for count, share in zip(users, shares, strict=True)
    )
    return float(special.chdtrc(len(users) - 1, float(statistic)))


def sequential_p(users: Sequence[int], shares: Sequence[Fraction], concentration: Exact) -> float:
    """min(1, 1 / E) of the Dirichlet-multinomial test; shares add up to 1.

    E = B(k shares + users) / B(k shares) / prod(shares^users), B the multivariate beta function. Lindon, Malek:
    Anytime-valid inference for multinomial count data (NeurIPS 2022).
    """
    return math.exp(-max(log_evidence(users, shares, concentration), 0.0))


def log_evidence(users: Sequence[int], shares: Sequence[Fraction], concentration: Exact) -> float:
    """ln E of `sequential_p`, without the cancellation of its log-gamma functions.

    With Stirling's ln Gamma(z) = (z - 1/2) ln z - z + ln(2 pi) / 2 + s(z), z = k share + users, m = share sum(z), the
    terms in which millions would cancel go away by algebra, and what is left is
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
