"""What intervals and tests promise. Imports nothing heavy, for settings need it."""

import math
from dataclasses import dataclass

DEFAULT_ALPHA = 0.05
DEFAULT_TUNING = 5_000
DEFAULT_CONCENTRATION = 2_000  # k of the sequential sample ratio test


@dataclass(frozen=True, slots=True)
class Confidence:
    """What intervals promise: to miss the truth at most with probability alpha.

    tuning: N*, the number of users (both arms) at which the always-valid interval is tightest for its alpha; it must
    be chosen before the data are seen. Raises ValueError unless 0 < alpha < 1 and tuning > 0.
    """

    alpha: float = DEFAULT_ALPHA
    tuning: int = DEFAULT_TUNING

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must be between 0 and 1, not {self.alpha}")
        if not self.tuning > 0:
            raise ValueError(f"tuning must be more than 0, not {self.tuning}")

    @property
    def rho2(self) -> float:
        """Variance of the mixture, rho^2, that makes the sequence tightest at N* users."""
        two_logs = -2 * math.log(self.alpha)
        return (two_logs + math.log1p(two_logs)) / self.tuning

    def always_factor(self, users: int) -> float:
        """Half of the always-valid interval at that many users in both arms, in standard errors."""
        mixed = users * self.rho2
        log_boundary = math.log1p(mixed) / 2 - math.log(self.alpha)
        return math.sqrt(2 * (mixed + 1) / mixed * log_boundary)
