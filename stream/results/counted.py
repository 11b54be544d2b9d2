"""What conclusions are drawn from: the counted sums of one experiment, as the views of the database give them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

ALL = "all"


@dataclass(frozen=True, slots=True)
class ArmSums:
    """Sums over the users of one arm, slice and phase of the plan, by their names in the view arm_sums."""

    arm: str
    slice: str
    phase: int
    sums: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Cohort:
    """Users by the UTC date of their start (days since 1970), and how many came back on day 1, 7 and 30.

    since: `assignment` or `exposure`, what the start is.
    """

    arm: str
    slice: str
    phase: int
    since: str
    start_date: int
    users: int
    active: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Troubles:
    """Events of one arm in one partition that count for nothing, and, to compare, what counted there."""

    arm: str
    partition: int
    late: int
    rejected: int
    duplicate: int
    orphaned: int
    events: int  # impressions, clicks and conversions that counted
    interactions: int  # clicks and conversions among them


@dataclass(frozen=True, slots=True)
class Counted:
    """Everything counted of one experiment up to as_of (event time; None: nothing yet)."""

    experiment: str
    generation: int = 0
    version: int = 0
    as_of_ms: int | None = None
    sums: tuple[ArmSums, ...] = ()
    cohorts: tuple[Cohort, ...] = ()
    troubles: tuple[Troubles, ...] = ()
    since_ms: Mapping[str, int] = field(default_factory=dict)  # of metrics that were declared later

    @property
    def arms(self) -> list[str]:
        """All arms, sorted."""
        return sorted({row.arm for row in self.sums})

    @property
    def slices(self) -> list[str]:
        """All slices, `all` first."""
        return sorted({row.slice for row in self.sums}, key=lambda name: (name != ALL, name))
