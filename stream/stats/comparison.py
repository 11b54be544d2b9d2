"""One arm against the control: difference and lift, with an interval for one look and one for any number of looks."""

import math
from dataclasses import dataclass, replace

from scipy import special

from stream.stats.confidence import Confidence
from stream.stats.estimates import Estimate
from stream.stats.reasons import NoInterval


@dataclass(frozen=True, slots=True)
class Comparison:
    """Arm minus control. `fixed_*` hold for one planned look; `always_*` and the lift's interval for any number.

    Where no interval exists, every figure is None and `reason` says why. With `control_is_zero` only the lift is
    absent. p_always is the p-value now; its running minimum is as valid.
    """

    difference: float | None = None
    se: float | None = None
    fixed_low: float | None = None
    fixed_high: float | None = None
    p_fixed: float | None = None
    always_low: float | None = None
    always_high: float | None = None
    p_always: float | None = None
    lift: float | None = None
    lift_low: float | None = None
    lift_high: float | None = None
    reason: NoInterval | None = None


def compare(
    control: Estimate | NoInterval, arm: Estimate | NoInterval, confidence: Confidence | None = None
) -> Comparison:
    """The comparison of two estimates of the same metric, from users of whom none is in both."""
    confidence = confidence or Confidence()
    if not isinstance(control, Estimate):
        return Comparison(reason=control)
    if not isinstance(arm, Estimate):
        return Comparison(reason=arm)
    se = math.sqrt(control.variance + arm.variance)
    if se == 0:
        return Comparison(reason=NoInterval.NO_VARIANCE)
    difference = float(arm.value - control.value)
    freedom = degrees_of_freedom(control, arm)
    fixed = se * float(special.stdtrit(freedom, 1 - confidence.alpha / 2))
    users = control.n + arm.n
    factor = confidence.always_factor(users)
    comparison = Comparison(
        difference=difference,
        se=se,
        fixed_low=difference - fixed,
        fixed_high=difference + fixed,
        p_fixed=2 * float(special.stdtr(freedom, -abs(difference) / se)),
        always_low=difference - factor * se,
        always_high=difference + factor * se,
        p_always=anytime_p(difference / se, users, confidence),
        reason=NoInterval.CONTROL_IS_ZERO,
    )
    if control.value == 0:
        return comparison
    lift = relative_lift(control, arm)
    low, high = lift.value - factor * lift.se, lift.value + factor * lift.se
    return replace(comparison, lift=lift.value, lift_low=low, lift_high=high, reason=None)


def degrees_of_freedom(control: Estimate, arm: Estimate) -> float:
    """Satterthwaite's, for Welch's t-test: (va + vb)^2 / (va^2 / (na - 1) + vb^2 / (nb - 1)); not both va, vb are 0."""
    both = control.variance + arm.variance
    return float(both**2 / (control.satterthwaite + arm.satterthwaite))


def anytime_p(z: float, users: int, confidence: Confidence) -> float:
    """P-value of a difference of z standard errors that stays valid however often one looks: min(1, 1 / E).

    ln E = rho^2 N z^2 / (2 (N rho^2 + 1)) - ln(N rho^2 + 1) / 2, the evidence of the normal mixture. It is below alpha
    exactly when the always-valid interval excludes 0. Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas: Time-uniform
    central limit theory and asymptotic confidence sequences (arXiv 2103.06476).
    """
    mixed = users * confidence.rho2
    log_evidence = mixed / (mixed + 1) * z * z / 2 - math.log1p(mixed) / 2
    return math.exp(-max(log_evidence, 0.0))


@dataclass(frozen=True, slots=True)
class Lift:
    """The relative difference and its standard error."""

    value: float
    se: float


def relative_lift(control: Estimate, arm: Estimate) -> Lift:
    """Rb / ra - 1 by the delta method: se^2 = vb / ra^2 + va rb^2 / ra^4; ra, the control's value, is not 0."""
    quotient = arm.value / control.value
    variance = (arm.variance + control.variance * quotient**2) / control.value**2
    return Lift(float(quotient - 1), math.sqrt(variance))
