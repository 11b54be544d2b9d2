"""The figures that a decision rests on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stream.results.rows import Result, Variant

SLICE = "all"  # decisions look at all users


@dataclass(frozen=True, slots=True)
class Figures:
    """What was known of one metric of an arm and its control; None: there is no such figure.

    users, or impressions for a rolling window, say how much the figures rest on.
    """

    metric: str
    window: str | None = None
    users: int | None = None
    control_users: int | None = None
    impressions: int | None = None
    control_impressions: int | None = None
    value: float | None = None
    control_value: float | None = None
    difference: float | None = None
    always_low: float | None = None
    always_high: float | None = None
    p_always: float | None = None
    lift: float | None = None
    lift_low: float | None = None
    lift_high: float | None = None

    @classmethod
    def of(cls, row: Result) -> "Figures":
        """Those of a row of the results."""
        return cls(
            metric=row.metric,
            users=row.users,
            control_users=row.control_users,
            value=row.value,
            control_value=row.control_value,
            difference=row.difference,
            always_low=row.always_low,
            always_high=row.always_high,
            p_always=row.p_always,
            lift=row.lift,
            lift_low=row.lift_low,
            lift_high=row.lift_high,
        )


@dataclass(frozen=True, slots=True)
class WindowCounts:
    """What a rolling window holds of one arm."""

    arm: str
    window: str
    impressions: int
    clicked_impressions: int
    converted_impressions: int

    def value(self, metric: str) -> float | None:
        """`ctr` or `conversion_rate`; None without impressions."""
        counted = self.clicked_impressions if metric == "ctr" else self.converted_impressions
        return counted / self.impressions if self.impressions else None


def figures_of(results: Iterable[Result], metric: str, arm: str) -> Figures | None:
    """The figures of a metric and arm since the start, over all users and without adjustment; None: there are none."""
    for row in results:
        if (row.metric, row.arm, row.slice, row.variant) == (metric, arm, SLICE, Variant.PLAIN):
            return Figures.of(row)
    return None


def figures_of_window(
    windows: Sequence[WindowCounts], window: str, metric: str, arm: str, control: str | None
) -> Figures | None:
    """The same of a rolling window, without intervals."""
    counts = {row.arm: row for row in windows if row.window == window}
    ours, theirs = counts.get(arm), counts.get(control or "")
    if ours is None:
        return None
    value = ours.value(metric)
    control_value = theirs.value(metric) if theirs else None
    difference = None if value is None or control_value is None else value - control_value
    return Figures(
        metric=metric,
        window=window,
        impressions=ours.impressions,
        control_impressions=theirs.impressions if theirs else None,
        value=value,
        control_value=control_value,
        difference=difference,
        lift=difference / control_value if difference is not None and control_value else None,
    )
