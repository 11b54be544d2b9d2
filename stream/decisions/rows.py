"""Decisions and lifts over the baseline as columns of the tables `decisions` and `baselines` (stream.sink.tables)."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from stream.decisions.book import Page
from stream.decisions.figures import SLICE
from stream.results.rows import Result, Variant

DECIDED, TAKEN_BACK = 1, 2  # versions of a decision's row


def decision_columns(page: Page) -> dict[str, list[Any]]:
    """One row."""
    decision, undone = page.decision, page.undone
    row = {
        "id": decision.id,
        "experiment": decision.experiment,
        "kind": decision.kind.value,
        "guardrail": decision.guardrail,
        "arm": decision.arm,
        "number": decision.number,
        "as_of_ms": decision.as_of_ms,
        "decided_at_ms": decision.decided_at_ms,
        "armed": decision.is_armed,
        "fallback": decision.fallback,
        "rule": decision.rule,
        "reason": decision.reason,
        "decided_by": decision.by,
        "why": decision.why,
        **asdict(decision.figures),
        "undone_at_ms": undone.at_ms if undone else None,
        "undone_by": undone.by if undone else None,
        "undone_why": undone.why if undone else None,
    }
    return {name: [value] for name, value in row.items()}


def version_of(page: Page) -> int:
    """Of the row: an undone decision replaces the one that stood."""
    return DECIDED if page.undone is None else TAKEN_BACK


def baseline_columns(results: Sequence[Result], baseline: str) -> dict[str, list[Any]]:
    """Rows of every metric and arm against the baseline, which is the results' control."""
    rows = [
        row for row in results if row.slice == SLICE and row.variant is Variant.PLAIN and row.arm != baseline
    ]
    same = (
        "experiment", "metric", "arm", "users", "value", "difference", "always_low", "always_high", "p_always", "lift",
        "lift_low", "lift_high", "reason",
    )  # fmt: skip
    return {
        **{name: [getattr(row, name) for row in rows] for name in same},
        "baseline": [baseline] * len(rows),
        "as_of_ms": [row.as_of_ms for row in rows],
        "baseline_users": [row.control_users for row in rows],
        "baseline_value": [row.control_value for row in rows],
    }
