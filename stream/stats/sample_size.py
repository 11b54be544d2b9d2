"""How many users a planned difference needs."""

import math
from dataclasses import dataclass

from scipy import special

from stream.stats.confidence import Confidence

DEFAULT_POWER = 0.8
MAX_USERS = 10**15


@dataclass(frozen=True, slots=True)
class Plan:
    """A difference that shall be found, and how the metric spreads over users.

    difference: in the metric's own unit, not 0; control_variance, arm_variance: of one user's value (for a ratio: n
    times the variance of its estimate); control_share: the control's part of the two arms' users. Raises ValueError
    for what cannot be planned.
    """

    difference: float
    control_variance: float
    arm_variance: float
    control_share: float = 0.5
    power: float = DEFAULT_POWER

    def __post_init__(self) -> None:
        if self.difference == 0 or not math.isfinite(self.difference):
            raise ValueError("the difference to find must not be 0")
        if not (0 < self.control_share < 1 and 0 < self.power < 1):
            raise ValueError("share and power must be between 0 and 1")
        if not (self.control_variance >= 0 and self.arm_variance >= 0 and self.spread > 0):
            raise ValueError("the variances must not be negative, nor both 0")

    @classmethod
    def of_proportion(
        cls, control: float, lift: float, *, control_share: float = 0.5, power: float = DEFAULT_POWER
    ) -> "Plan":
        """For a share of users that is `control` there and `control * (1 + lift)` in the arm."""
        arm = control * (1 + lift)
        if not (0 < control < 1 and 0 <= arm <= 1):
            raise ValueError("a proportion must be between 0 and 1")
        return cls(arm - control, control * (1 - control), arm * (1 - arm), control_share, power)

    @property
    def spread(self) -> float:
        """N times the variance of the difference."""
        return self.control_variance / self.control_share + self.arm_variance / (1 - self.control_share)


def users_fixed(plan: Plan, confidence: Confidence) -> int:
    """Users in both arms for one look at the end: ((z(1 - alpha / 2) + z(power)) / difference)^2 * spread.

    Raises ValueError when that is more than MAX_USERS.
    """
    z = max(0.0, float(special.ndtri(1 - confidence.alpha / 2) + special.ndtri(plan.power)))
    deviations = z / plan.difference
    return _checked(deviations * deviations * plan.spread)


def users_always(plan: Plan, confidence: Confidence) -> int:
    """Users in both arms by which the always-valid interval excludes 0 with the planned power.

    The least N with |difference| sqrt(N / spread) >= factor(N) + z(power). Looks before N only add power. Raises
    ValueError when that is more than MAX_USERS.
    """
    z = float(special.ndtri(plan.power))

    def is_enough(users: int) -> bool:
        return abs(plan.difference) * math.sqrt(users / plan.spread) >= confidence.always_factor(users) + z

    high = 1
    while not is_enough(high):
        high = _checked(2 * high)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _checked(users: float) -> int:
    if not users <= MAX_USERS:
        raise ValueError(f"more than {MAX_USERS:,} users would be needed")
    return math.ceil(users)
