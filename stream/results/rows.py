"""The conclusions: one row per metric, arm and slice, and the health of an experiment."""

from dataclasses import dataclass
from enum import StrEnum


class Variant(StrEnum):
    """How a metric was estimated."""

    PLAIN = "plain"
    CUPED = "cuped"  # adjusted by what the users' pre_value foretells


class Basis(StrEnum):
    """Which users count, and from when on."""

    EXPOSED = "exposed"  # users with an impression, from the first one on
    ASSIGNED = "assigned"  # all users, from the assignment on


class Direction(StrEnum):
    """What the always-valid interval of the difference says; whether higher is better is the reader's to say."""

    HIGHER = "higher"
    LOWER = "lower"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Result:
    """One metric of one arm in one slice, against the control. What does not exist is None, and `reason` says why.

    The control's own row, and every row of an experiment without a control, has a value only. Of a comparison that
    spans phases of the plan, value and control_value are weighted over the phases in which both arms have users.
    users, control_users: those the comparison rests on. mature_share: part of the arm's users whose window is over.
    since_ms: event time from which on a metric counts that was declared later; None: from the start.
    """

    experiment: str
    metric: str
    variant: Variant
    kind: str  # of stats.estimates.Kind
    slice: str
    arm: str
    control: str | None
    basis: Basis
    users: int
    control_users: int | None = None
    value: float | None = None
    control_value: float | None = None
    difference: float | None = None
    se: float | None = None
    fixed_low: float | None = None
    fixed_high: float | None = None
    p_fixed: float | None = None
    always_low: float | None = None
    always_high: float | None = None
    p_always: float | None = None
    p_bonferroni: float | None = None
    p_bh: float | None = None
    lift: float | None = None
    lift_low: float | None = None
    lift_high: float | None = None
    mature_share: float | None = None
    since_ms: int | None = None
    reason: str | None = None
    as_of_ms: int | None = None

    @property
    def direction(self) -> Direction:
        """What may be said now, however often one has looked."""
        if self.always_low is None or self.always_high is None or self.always_low <= 0 <= self.always_high:
            return Direction.UNDECIDED
        return Direction.HIGHER if self.always_low > 0 else Direction.LOWER


class Verdict(StrEnum):
    """Whether the numbers of an experiment can be trusted."""

    OK = "ok"
    WARNING = "warning"
    BROKEN = "broken"


class CheckName(StrEnum):
    """What is checked."""

    SAMPLE_RATIO = "sample_ratio"
    MIXED = "mixed"
    LATE = "late"
    REJECTED = "rejected"
    DUPLICATE = "duplicate"
    ORPHANED = "orphaned"
    PRE_VALUE = "pre_value"


@dataclass(frozen=True, slots=True)
class Check:
    """One check. p: anytime p-value, adjusted for the number of comparisons in it; it fails below the threshold.

    arm: the one that differs most, where a check fails. Without a test p is None and reason says why; reason is words.
    """

    check: CheckName
    verdict: Verdict
    p: float | None
    threshold: float
    reason: str
    arm: str | None = None


@dataclass(frozen=True, slots=True)
class ArmHealth:
    """What happened to the users and events of one arm. Shares are of what they are part of; None: of nothing.

    users: by first assignment, mixed ones included; planned_share, share: of all arms' users. planned_share is that
    of the phases together, weighted by their users. Late, rejected and duplicate are shares of all events seen,
    orphaned of the interactions, mixed of the users. pre_value: its mean over assigned users.
    """

    arm: str
    users: int
    planned_share: float | None
    share: float | None
    assigned_users: int
    exposed_users: int
    mixed_users: int
    mixed_share: float | None
    before_assignment: int
    foreign_currency: int
    late: int
    late_share: float | None
    rejected: int
    rejected_share: float | None
    duplicate: int
    duplicate_share: float | None
    orphaned: int
    orphaned_share: float | None
    pre_value: float | None


@dataclass(frozen=True, slots=True)
class SliceHealth:
    """The sample ratio of one slice. reason: why there is no test (a name), else None."""

    slice: str
    p_fixed: float | None
    p_sequential: float | None
    verdict: Verdict
    reason: str | None
    users: dict[str, int]  # by arm, by first assignment


@dataclass(frozen=True, slots=True)
class ExperimentHealth:
    """Whether an experiment can be trusted: the worst verdict of its checks, and why in words.

    slices: `all` first; guilty_slice: the one whose sample ratio is farthest off, where one is.
    """

    experiment: str
    verdict: Verdict
    reason: str
    checks: tuple[Check, ...]
    arms: tuple[ArmHealth, ...]
    slices: tuple[SliceHealth, ...]
    guilty_slice: str | None = None
    as_of_ms: int | None = None

    def check(self, name: CheckName) -> Check:
        """The check of that name."""
        return next(check for check in self.checks if check.check is name)


@dataclass(frozen=True, slots=True)
class Standing:
    """How an experiment stands: all conclusions from one reading of the sums.

    version grows with the steps that the reading rests on. results: slice `all` first; slices may be left out where
    they are not due.
    """

    experiment: str
    generation: int
    version: int
    as_of_ms: int | None
    results: tuple[Result, ...]
    health: ExperimentHealth
