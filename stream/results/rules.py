"""What conclusions depend on besides the experiment and its sums."""

from dataclasses import dataclass, field

from stream.contracts.definitions import DAY_MS
from stream.stats.confidence import DEFAULT_CONCENTRATION, Confidence

MIN_SLICE_USERS = 100


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings of the conclusions. min_slice_users: fewer in either arm, and a slice has no interval."""

    confidence: Confidence = field(default_factory=Confidence)
    concentration: int = DEFAULT_CONCENTRATION
    min_slice_users: int = MIN_SLICE_USERS
    attribution_window_ms: int = DAY_MS
