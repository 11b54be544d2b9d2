"""What a step puts out: absolute totals as columns, by table. Column names are those of the private ClickHouse tables.

The sink adds `generation`, `partition` and `version` (the step) to each row of each table.
`dimension`/`value`: `all` and '' or a slice dimension and its value.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Column = Any  # numpy array or list, all of one table equally long
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
# Sums over users. Revenue, squares and products are two words: int64 (rows, 2), low and high.
MOMENTS = (
    "impressions_sq", "clicked_sq", "clicked_x_impressions", "converted_sq", "converted_x_impressions",
    "clicks_sq", "conversions_sq", "revenue_sq", "revenue_x_conversions",
)  # fmt: skip
TOTALS = (
    ("experiment", "arm", "dimension", "value"),
    ("assigned_users", "exposed_users", *COUNTS, "mixed_users", "mixed_events", "before_assignment",
     "foreign_currency", *MOMENTS),
)  # fmt: skip
LEDGER = (
    ("topic", "hour_ms", "fragment"),
    ("consumed", "counted", "duplicate", "late", "outside", "rejected", "attributed", "waiting", "no_reference",
     "unknown_impression", "other_user", "outside_window", "misrouted"),
)  # fmt: skip
DEAD_LETTERS = (
    ("topic", "offset"),
    ("record_at_ms", "reason", "field", "rule", "schema_id", "payload", "payload_bytes"),
)
TABLES = {"panes": PANES, "totals": TOTALS, "ledger": LEDGER, "dead_letters": DEAD_LETTERS}


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
