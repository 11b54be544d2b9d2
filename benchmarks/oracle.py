"""What the numbers must be, counted in plain Python from the workload's facts."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.workload import Workload

PANE_MS = 10_000

Arm = tuple[str, str]  # experiment, arm
Cell = tuple[str, str, int]  # experiment, arm, pane_start_ms
Counts = Counter[str]  # by column; a column that is 0 may be absent


@dataclass(frozen=True, slots=True)
class Expected:
    """Counts of every pane and arm, and the outcomes of all records.

    outside: None where the rules leave it open. unsure: experiments whose panes the rules leave open.
    """

    events: int
    duplicates: int
    panes: dict[Cell, Counts]
    arms: dict[Arm, Counts]
    outside: int | None = 0
    unsure: frozenset[str] = frozenset()


def expected_of(workload: Workload) -> Expected:
    """The truth about a workload: nothing in it is late, rejected or outside an experiment."""
    panes: dict[Cell, Counts] = defaultdict(Counter)
    for column, user_id, at_ms, amount in _amounts(workload):
        for experiment, arm in workload.assignments[user_id].items():
            panes[experiment, arm, at_ms // PANE_MS * PANE_MS][column] += amount
    arms = _users(workload)
    for (experiment, arm, _), counts in panes.items():
        arms[experiment, arm].update(counts)
    return Expected(len(workload.records), workload.duplicates, dict(panes), arms)


def impression_cells(expected: Expected) -> dict[tuple[str, ...], int]:
    """What peers count: (column, experiment, arm, pane_start_ms) of the columns that belong to impressions."""
    return {
        (column, experiment, arm, str(pane_start_ms)): count
        for (experiment, arm, pane_start_ms), counts in expected.panes.items()
        for column, count in counts.items()
        if column.endswith("impressions")
    }


def _amounts(workload: Workload) -> Iterator[tuple[str, str, int, int]]:
    """(column, user, time, amount) of everything that counts."""
    impressions = {impression.impression_id: impression for impression in workload.impressions}
    answered = {"click": "clicked_impressions", "purchase": "converted_impressions"}
    own = {"click": "clicks", "purchase": "conversions"}
    for impression in impressions.values():
        yield "impressions", impression.user_id, impression.at_ms, 1
    for of, kind in sorted(
        {(x.impression_id, x.kind) for x in workload.interactions if x.impression_id in impressions}
    ):
        yield answered[kind], impressions[of].user_id, impressions[of].at_ms, 1
    for interaction in workload.interactions:
        yield own[interaction.kind], interaction.user_id, interaction.at_ms, 1
        yield "revenue_minor", interaction.user_id, interaction.at_ms, interaction.value_minor


def _users(workload: Workload) -> dict[Arm, Counts]:
    exposed = {impression.user_id for impression in workload.impressions}
    arms: dict[Arm, Counts] = defaultdict(Counter)
    for user_id, of in workload.assignments.items():
        for arm in of.items():
            arms[arm]["assigned_users"] += 1
            arms[arm]["exposed_users"] += user_id in exposed
    return dict(arms)
