"""What a step puts out: absolute totals as columns, by table. Column names are those of the private ClickHouse tables.

The sink adds `generation`, `partition` and `version` (the step) to each row of each table.
`dimension`/`value`: `all` and '' or a slice dimension and its value.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.engine.moments import FLAGS, MOMENTS

Column = Any  # numpy array, list or Words, all of one table equally long
Table = dict[str, Column]
Tally = tuple[str, str, str]  # a topic's word, an outcome, the reason of a rejected record or ''

COUNTS = (
    "impressions",
    "clicked_impressions",
    "converted_impressions",
    "clicks",
    "conversions",
    "revenue_minor",
)

# key columns, value columns
PANES = (
    ("experiment", "arm", "dimension", "value", "pane_seconds", "pane_start_ms", "fragment"),
    COUNTS,
)
# Sums over users, by user slice and phase of the experiment's plan. Those of WIDE are two words: int64 (rows, 2), low
# and high.
TOTALS = (("experiment", "arm", "dimension", "value", "phase"), MOMENTS)
WIDE = frozenset(MOMENTS) - {
    "assigned_users", "exposed_users", "impressions", "clicked_impressions", "converted_impressions", "clicks",
    "conversions", *FLAGS,
}  # fmt: skip
# Users by the UTC date of their start (days since 1970), and how many of them were active so many days later.
# since: `assignment` or `exposure`.
COHORTS = (
    ("experiment", "arm", "dimension", "value", "phase", "since", "start_date"),
    ("users", "active_d1", "active_d7", "active_d30"),
)
# Events that count for nothing, by the arm that was known when they came. No experiment, arm `unknown`: none was.
TROUBLES = (("experiment", "arm"), ("late", "duplicate", "rejected", "orphaned"))
# Declared metrics: which of the declared_1, ... counts them, and since when (event time; -1: from the start).
DECLARED_METRICS = (("experiment", "metric"), ("slot", "since_ms"))
LEDGER = (
    ("topic", "hour_ms", "fragment"),
    ("consumed", "counted", "duplicate", "late", "outside", "rejected", "attributed", "waiting", "no_reference",
     "unknown_impression", "other_user", "outside_window", "misrouted"),
)  # fmt: skip
DEAD_LETTERS = (
    ("topic", "offset"),
    ("record_at_ms", "reason", "field", "rule", "schema_id", "payload", "payload_bytes"),
)
TABLES = {
    "panes": PANES, "totals": TOTALS, "cohorts": COHORTS, "troubles": TROUBLES,
    "declared_metrics": DECLARED_METRICS, "ledger": LEDGER, "dead_letters": DEAD_LETTERS,
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)  # the same texts can be numbered in several ways
class Words:
    """A column of texts of which few differ: row i has names[codes[i]]."""

    names: Sequence[str]
    codes: npt.NDArray[np.int64]

    def __len__(self) -> int:
        """Rows."""
        return len(self.codes)

    def __iter__(self) -> Iterator[str]:
        """The text of each row."""
        return map(self.names.__getitem__, self.codes.tolist())


@dataclass(frozen=True, slots=True)
class Chunk:
    """Absolute counts of the 10 s panes of slice `all` in one five-minute chunk of one experiment, one partition."""

    experiment: str
    chunk_start_ms: int
    arms: list[str]  # one per row
    pane_start_ms: list[int]  # one per row
    counts: list[list[int]]  # one per row, in the order of COUNTS


@dataclass(frozen=True, slots=True)
class Outputs:
    """All a step puts out, in a deterministic order."""

    step: int
    tables: dict[str, Table]
    chunks: list[Chunk]
    rows: int  # records executed
    clock_ms: int  # the partition's clock after the step (its watermark); -1 before the first event
    horizon_ms: int
    tallies: dict[Tally, int] = field(default_factory=dict)  # records of this step, before any later repair

    def with_topics(self, names: Mapping[str, str]) -> "Outputs":
        """The same with full topic names, by the words that the engine uses, in ledger and dead letters."""
        named = {
            name: table | {"topic": [names.get(word, word) for word in table["topic"]]}
            for name, table in self.tables.items()
            if "topic" in table
        }
        return replace(self, tables=self.tables | named)
