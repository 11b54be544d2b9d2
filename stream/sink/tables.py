"""The private tables as Arrow columns: what a step puts out becomes what ClickHouse takes in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import index
from typing import Any

import numpy as np
import pyarrow as pa

from stream.engine.outputs import (
    COHORTS,
    COUNTS,
    DEAD_LETTERS,
    DECLARED_METRICS,
    LEDGER,
    PANES,
    TOTALS,
    TROUBLES,
    WIDE,
    Words,
)
from stream.results.columns import HEALTH, HISTORY, RESULTS

INT128 = pa.binary(16)  # ClickHouse reads 16 fixed bytes, little-endian, as its Int128
TIME = pa.timestamp("ms", "UTC")
_TIMES = {
    "pane_start_ms", "hour_ms", "record_at_ms", "as_of_ms", "watermark_ms", "horizon_ms", "last_step_at_ms",
    "written_at_ms", "data_as_of_ms", "heard_at_ms", "assignments_at_ms", "impressions_at_ms", "interactions_at_ms",
    "minute_ms", "counts_since_ms", "decided_at_ms", "undone_at_ms",
}  # fmt: skip
TAKEN_ROWS = 1 << 20  # of names at once: a text column of Arrow in one piece holds at most 2 GiB
_NARROW = {"pane_seconds": pa.uint32(), "window_seconds": pa.uint32(), "last_step": pa.uint64()}
_TEXTS = {
    "experiment", "arm", "dimension", "value", "topic", "reason", "field", "rule", "worker", "reasons", "warnings",
    "since", "metric", "definitions", "slice", "variant", "kind", "control", "basis", "direction", "why_not", "verdict",
    "explanation",
}  # fmt: skip
_FLOATS = {
    name
    for name in (*RESULTS[1], *HEALTH[1])
    if name.startswith(("p_", "srm_p_", "fixed_", "always_", "lift")) or name.endswith("share")
} | {"result", "control_value", "difference", "se", "mean_pre_value"}


@dataclass(frozen=True, slots=True)
class Shape:
    """A private table. key, values: column names as the engine gives them (times end in `_ms`).

    The row of one key, within one generation and partition, is replaced by a newer version. types: of columns whose
    name does not say it.
    """

    name: str
    key: tuple[str, ...]
    values: tuple[str, ...]
    types: Mapping[str, pa.DataType] = field(default_factory=dict)

    @property
    def schema(self) -> pa.Schema:
        """Columns as in ClickHouse (times without their `_ms`), then generation, partition, version."""
        own = [(_stored_name(c), self.type_of(c)) for c in (*self.key, *self.values)]
        return pa.schema(
            [*own, ("generation", pa.uint32()), ("partition", pa.uint32()), ("version", pa.uint64())]
        )

    def type_of(self, column: str) -> pa.DataType:
        """The Arrow type of a column, by the engine's name."""
        return self.types.get(column) or _type(column)

    @property
    def stored_key(self) -> list[str]:
        """Names of the columns that tell rows apart."""
        return [*map(_stored_name, self.key), "generation", "partition"]

    def rows(self, columns: Mapping[str, Any], *, generation: int, partition: int, version: Any) -> pa.Table:
        """Columns as an Arrow table. version: one for all rows, or an array of one for each.

        columns: lists, Words, numpy or Arrow arrays, all equally long. Int128 columns (squares, products, revenue)
        may be lists of integers, int64 arrays of shape (rows,), or int64 arrays (rows, 2): low word, high word.
        Arrays are kept, not copied: they must not change afterwards.
        Raises ValueError when a column is missing, unknown or of another length.
        """
        expected = (*self.key, *self.values)
        if set(columns) != set(expected):
            raise ValueError(f"{self.name}: columns differ: {sorted(set(columns) ^ set(expected))}")
        arrays = [_array(columns[c], self.type_of(c)) for c in expected]
        n = len(arrays[0])
        versions = np.broadcast_to(np.asarray(version, np.uint64), n)
        stamps = [
            pa.repeat(pa.scalar(generation, pa.uint32()), n),
            pa.repeat(pa.scalar(partition, pa.uint32()), n),
            pa.array(versions, pa.uint64()),
        ]
        return pa.Table.from_arrays([*arrays, *stamps], schema=self.schema)


ROLLING = (("experiment", "arm", "dimension", "value", "window_seconds"), ("as_of_ms", *COUNTS))
DEFINITIONS: tuple[tuple[str, ...], tuple[str, ...]] = ((), ("definitions",))
STATUS = (
    (),
    ("watermark_ms", "horizon_ms", "lag", "latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "records", "last_step",
     "last_step_at_ms", "written_at_ms", "data_as_of_ms"),
)  # fmt: skip
FIGURES = (
    "value", "control_value", "difference", "always_low", "always_high", "p_always", "lift", "lift_low", "lift_high",
)  # fmt: skip
DECISIONS = (
    ("id",),
    ("experiment", "kind", "guardrail", "arm", "number", "as_of_ms", "decided_at_ms", "armed", "fallback", "rule",
     "reason", "decided_by", "why", "metric", "window", "users", "control_users", "impressions", "control_impressions",
     *FIGURES, "undone_at_ms", "undone_by", "undone_why"),
)  # fmt: skip
_DECISION_TEXTS = (
    "id", "kind", "guardrail", "fallback", "decided_by", "why", "window", "undone_by", "undone_why",
)  # fmt: skip
_FIGURE_TYPES = dict.fromkeys((*FIGURES, "baseline_value"), pa.float64())
BASELINES = (
    ("experiment", "metric", "arm"),
    ("baseline", "as_of_ms", "users", "baseline_users", "value", "baseline_value", *FIGURES[2:], "reason"),
)

WORKERS = (
    ("worker",),
    (
        "heard_at_ms",
        "is_ready",
        "reasons",
        "warnings",
        "assignments_at_ms",
        "impressions_at_ms",
        "interactions_at_ms",
    ),
)

# By the engine's name of the table.
SHAPES: dict[str, Shape] = {
    "panes": Shape("panes", *PANES),
    "totals": Shape("user_sums", *TOTALS),
    "cohorts": Shape("cohorts", *COHORTS),
    "troubles": Shape("troubles", *TROUBLES),
    "declared_metrics": Shape("declared_metrics", *DECLARED_METRICS),
    "ledger": Shape("ledger_rows", *LEDGER),
    "dead_letters": Shape("dead_letter_rows", *DEAD_LETTERS),
    "rolling": Shape("rolling", *ROLLING),
    "status": Shape("partition_status", *STATUS),
    "workers": Shape("worker_status", *WORKERS),
    "definitions": Shape("definitions", *DEFINITIONS),
    "results": Shape("results", *RESULTS),
    "results_history": Shape("results_history", *HISTORY),
    "health": Shape("health", *HEALTH),
    "decisions": Shape(
        "decision_rows",
        *DECISIONS,
        _FIGURE_TYPES | dict.fromkeys(_DECISION_TEXTS, pa.string()) | {"armed": pa.bool_()},
    ),
    "baselines": Shape("baseline_rows", *BASELINES, _FIGURE_TYPES | {"baseline": pa.string()}),
}


def int128(column: Any) -> pa.FixedSizeBinaryArray:
    """Exact integers as 16 little-endian bytes each; see Shape.rows for what is accepted.

    Raises OverflowError for an integer beyond 128 bits.
    """
    words = column if isinstance(column, np.ndarray) else _int64(column)
    if words is None:
        data = b"".join(index(x).to_bytes(16, "little", signed=True) for x in column)
        return pa.FixedSizeBinaryArray.from_buffers(INT128, len(column), [None, pa.py_buffer(data)])
    if words.ndim == 1:
        low = words.astype(np.int64, casting="safe")
        words = np.stack([low, low >> 63], axis=1)
    pairs = np.ascontiguousarray(words, dtype="<i8")
    return pa.FixedSizeBinaryArray.from_buffers(INT128, len(pairs), [None, pa.py_buffer(pairs)])


def _int64(column: Any) -> np.ndarray[Any, Any] | None:
    try:
        words: np.ndarray[Any, Any] = pa.array(column, pa.int64()).to_numpy()
        return words
    except (OverflowError, pa.ArrowInvalid):
        return None


def _array(column: Any, kind: pa.DataType) -> pa.Array:
    if kind == INT128:
        return int128(column)
    if isinstance(column, pa.Array):
        return column.cast(kind)
    if isinstance(column, Words):
        names = pa.array(column.names, kind)
        pieces = [column.codes[i : i + TAKEN_ROWS] for i in range(0, len(column), TAKEN_ROWS)]
        return pa.chunked_array([names.take(pa.array(piece)) for piece in pieces], kind)
    if kind == pa.date32():
        return pa.array(column, pa.int32()).cast(kind)
    if kind == TIME:
        return pa.array(column, pa.int64()).cast(TIME)
    return pa.array(column, kind)


def _stored_name(column: str) -> str:
    return column.removesuffix("_ms") if column in _TIMES else column


def _type(column: str) -> pa.DataType:
    if column in _TIMES:
        return TIME
    if column == "start_date":
        return pa.date32()
    if column in _TEXTS:
        return pa.string()
    if column == "payload":
        return pa.large_binary()  # a few thousand large payloads are more than 2 GiB
    if column in _FLOATS:
        return pa.float64()
    if column in WIDE:
        return INT128
    return _NARROW.get(column, pa.int64())
