"""Rows and steps with defaults."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from stream.engine.outputs import TABLES, Outputs
from stream.sink.emission import Emission
from stream.sink.origins import Origins

Row = dict[str, Any]
HOUR_MS = 3_600_000
NOON_MS = 1_735_732_800_000  # 2025-01-01 12:00 UTC


def a_row(table: str, **values: Any) -> Row:
    """A row of an engine table: zeros and empty texts but for `values`."""
    key, others = TABLES[table]
    texts = {"experiment", "arm", "dimension", "value", "topic", "reason", "field", "rule", "since", "metric"}
    zeros: Row = {name: "" if name in texts else 0 for name in (*key, *others)}
    return zeros | values


def a_pane(**values: Any) -> Row:
    defaults = {
        "experiment": "shelf",
        "arm": "a",
        "dimension": "all",
        "pane_start_ms": NOON_MS,
        "fragment": 1,
    }
    width = {"pane_seconds": 10 if values.get("dimension", "all") == "all" else 60}
    return a_row("panes", **(defaults | width | values))


def a_total(**values: Any) -> Row:
    return a_row("totals", **({"experiment": "shelf", "arm": "a", "dimension": "all"} | values))


def a_ledger_row(**values: Any) -> Row:
    return a_row("ledger", **({"topic": "impressions", "hour_ms": NOON_MS, "fragment": 1} | values))


def a_dead_letter(**values: Any) -> Row:
    defaults = {
        "topic": "impressions",
        "record_at_ms": NOON_MS,
        "reason": "empty",
        "field": "arm",
        "payload": b"",
    }
    return a_row("dead_letters", **(defaults | values))


def a_step(
    step: int = 1,
    *,
    panes: Sequence[Row] = (),
    totals: Sequence[Row] = (),
    ledger: Sequence[Row] = (),
    dead_letters: Sequence[Row] = (),
    clock_ms: int = NOON_MS,
) -> Outputs:
    given = dict.fromkeys(TABLES, ()) | {
        "panes": panes, "totals": totals, "ledger": ledger, "dead_letters": dead_letters,
    }  # fmt: skip
    tables = {
        name: {column: [row[column] for row in given[name]] for column in (*key, *others)}
        for name, (key, others) in TABLES.items()
    }
    return Outputs(step, tables, [], 10, clock_ms, clock_ms - 24 * HOUR_MS)


def an_emission(
    step: int = 1,
    *,
    generation: int = 1,
    partition: int = 0,
    record_at_ms: Sequence[int] = (NOON_MS,),
    lag: int = 0,
    **tables: Any,
) -> Emission:
    origins = Origins.of(np.array(record_at_ms, np.int64))
    return Emission(generation, partition, a_step(step, **tables), NOON_MS + 1000, lag, origins)
