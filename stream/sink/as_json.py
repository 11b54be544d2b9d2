"""Totals and conclusions as programs get them: the rows that the commands print as JSON."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from stream.results.rows import ExperimentHealth, Result, Standing

Row = dict[str, Any]

_TIMES = {"since_ms": "since", "as_of_ms": "as_of"}


def with_metrics(totals: Iterable[Mapping[str, Any]], standings: Iterable[Standing]) -> list[Row]:
    """Totals by experiment, arm and slice, each with `metrics`: the results of that arm."""
    metrics: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for standing in standings:
        for row in standing.results:
            metrics[row.experiment, row.arm, row.slice].append(result_row(row))
    return [{**row, "metrics": metrics[row["experiment"], row["arm"], row["slice"]]} for row in totals]


def result_row(result: Result) -> Row:
    """A result with its times as times, and what may be said."""
    fields = asdict(result)
    plain = {
        _TIMES.get(name, name): moment(fields[name]) if name in _TIMES else fields[name] for name in fields
    }
    return plain | {"direction": result.direction}


def health_row(one: ExperimentHealth) -> Row:
    """The verdict and the sample ratio first, then what they rest on."""
    whole = one.slices[0]
    return {
        "experiment": one.experiment,
        "verdict": one.verdict,
        "reason": one.reason,
        "as_of": moment(one.as_of_ms),
        "srm": {"p_fixed": whole.p_fixed, "p_sequential": whole.p_sequential, "reason": whole.reason},
        "guilty_slice": one.guilty_slice,
        "checks": [asdict(check) for check in one.checks],
        "arms": [asdict(arm) for arm in one.arms],
        "slices": [asdict(row) for row in one.slices],
    }


def moment(at_ms: int | None) -> datetime | None:
    """Epoch milliseconds as a time."""
    return None if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC)
