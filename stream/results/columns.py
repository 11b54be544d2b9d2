"""Conclusions as columns of the private tables `results`, `results_history` and `health`."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from stream.results.counted import ALL
from stream.results.rows import CheckName, ExperimentHealth, Result

MINUTE_MS = 60_000
Columns = dict[str, list[Any]]

# key columns, value columns
RESULTS = (
    ("experiment", "slice", "metric", "variant", "arm"),
    ("kind", "control", "basis", "users", "control_users", "result", "control_value", "difference", "se", "fixed_low",
     "fixed_high", "p_fixed", "always_low", "always_high", "p_always", "p_bonferroni", "p_bh", "lift", "lift_low",
     "lift_high", "mature_share", "direction", "why_not", "counts_since_ms", "as_of_ms"),
)  # fmt: skip
HISTORY = (
    (*RESULTS[0], "minute_ms"),
    ("users", "control_users", "result", "control_value", "difference", "se", "always_low", "always_high", "p_always",
     "lift", "lift_low", "lift_high"),
)  # fmt: skip
_RENAMED = {"result": "value", "counts_since_ms": "since_ms", "why_not": "reason"}  # attributes of a Result
TESTED = (CheckName.MIXED, CheckName.LATE, CheckName.REJECTED, CheckName.DUPLICATE, CheckName.ORPHANED,
          CheckName.PRE_VALUE)  # fmt: skip
_OF_ARM = (
    "assigned_users", "exposed_users", "mixed_users", "mixed_share", "before_assignment", "foreign_currency", "late",
    "late_share", "rejected", "rejected_share", "duplicate", "duplicate_share", "orphaned", "orphaned_share",
    "mean_pre_value",
)  # fmt: skip
HEALTH = (
    ("experiment", "slice", "arm"),
    ("verdict", "explanation", "users", "planned_share", "share", "srm_p_fixed", "srm_p_sequential", *_OF_ARM,
     *(f"p_{name.value}" for name in TESTED), "as_of_ms"),
)  # fmt: skip


def result_columns(rows: Iterable[Result]) -> Columns:
    """Rows of `results`."""
    return _of_results(RESULTS, list(rows))


def history_columns(rows: Iterable[Result]) -> Columns:
    """Rows of `results_history`: the comparisons, under the minute of their as_of."""
    compared = [row for row in rows if row.as_of_ms is not None and row.p_always is not None]
    minutes = [(row.as_of_ms or 0) // MINUTE_MS * MINUTE_MS for row in compared]
    return _of_results((RESULTS[0], HISTORY[1]), compared) | {"minute_ms": minutes}


def health_columns(found: Iterable[ExperimentHealth]) -> Columns:
    """Rows of `health`: each arm in the whole experiment, and its users in each slice."""
    return _columns(HEALTH, (row for one in found for row in _health_rows(one)))


def _of_results(shape: tuple[Sequence[str], Sequence[str]], rows: Sequence[Result]) -> Columns:
    return {name: [getattr(row, _RENAMED.get(name, name)) for row in rows] for part in shape for name in part}


def _health_rows(one: ExperimentHealth) -> Iterable[dict[str, Any]]:
    about = {"experiment": one.experiment, "as_of_ms": one.as_of_ms}
    p_values = {f"p_{name.value}": one.check(name).p for name in TESTED}
    for row in one.slices:
        ratio = {"slice": row.slice, "srm_p_fixed": row.p_fixed, "srm_p_sequential": row.p_sequential}
        if row.slice == ALL:
            said = {"verdict": one.verdict, "explanation": one.reason}
            for arm in one.arms:
                yield about | p_values | ratio | said | asdict(arm) | {"mean_pre_value": arm.pre_value}
            continue
        total = sum(row.users.values())
        for name, users in row.users.items():
            said = {"verdict": row.verdict, "explanation": row.reason or ""}
            yield (
                about
                | ratio
                | said
                | {"arm": name, "users": users, "share": users / total if total else None}
            )


def _columns(shape: tuple[Sequence[str], Sequence[str]], rows: Iterable[dict[str, Any]]) -> Columns:
    listed = list(rows)
    return {name: [row.get(name) for row in listed] for part in shape for name in part}
