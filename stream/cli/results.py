"""`liftstream results`: every metric of every arm against the control."""

from pathlib import Path
from typing import Any

import click

from stream.cli import SUMMARIES, options
from stream.cli.printing import note, print_json, print_table, shown
from stream.cli.reading import opened
from stream.cli.standing import standings_of
from stream.results.counted import ALL
from stream.results.rows import Direction, Result, Standing, Verdict
from stream.sink.as_json import moment, with_metrics
from stream.sink.queries import results

Row = dict[str, Any]

COLUMNS = (
    "metric",
    "arm",
    "value",
    "difference",
    "always-valid",
    "lift",
    "lift interval",
    "users",
    "mature",
    "verdict",
)


@click.command("results", short_help=SUMMARIES["results"])
@options.into
@options.as_json
@options.experiment_files
@click.option("--experiment", help="Only this experiment.")
@click.option("--slice", "slice_name", help="Only this slice: all, country=DE, ...")
def command(
    folder: Path | None, as_json: bool, files: Path | None, experiment: str | None, slice_name: str | None
) -> None:
    """Show every metric of every arm against the control, from the experiment's start until now.

    The interval is that of the difference and always valid: look as often as you like. Money is in minor units (cents).
    With --json: totals of every arm and slice (the view arm_totals), each with its metrics.
    """
    with opened(folder) as db:
        totals = [row for row in results(db, experiment) if slice_name in (None, row["slice"])]
        standings = standings_of(db, files, experiment)
    if as_json:
        return print_json(with_metrics(totals, standings))
    if not totals:
        return note("There are no results yet.")
    for standing in standings:
        _print(standing, slice_name or ALL)
    slices = len({row["slice"] for row in totals} - {ALL})
    return (
        note(f"{slices} slices are not shown: --slice NAME, or --json.")
        if slices and not slice_name
        else None
    )


def _print(standing: Standing, slice_name: str) -> None:
    rows = [row for row in standing.results if row.slice == slice_name]
    if not rows:
        return
    against = f"against {rows[0].control}" if rows[0].control else "no control, so values only"
    title = f"{standing.experiment}, {slice_name}: {against}; as of {shown(moment(standing.as_of_ms))} UTC"
    print_table([_shown(row) for row in rows], COLUMNS, title=title)
    if standing.health.verdict is not Verdict.OK:
        note(f"Health of {standing.experiment}: {standing.health.verdict}. {standing.health.reason}")


def _shown(row: Result) -> Row:
    name = row.metric if row.variant == "plain" else f"{row.metric} ({row.variant})"
    return {
        "metric": name,
        "arm": row.arm,
        "value": row.value,
        "difference": row.difference,
        "always-valid": _interval(row.always_low, row.always_high),
        "lift": None if row.lift is None else f"{row.lift:+.2%}",
        "lift interval": None if row.lift_low is None else f"[{row.lift_low:+.2%}, {row.lift_high:+.2%}]",
        "users": row.users,
        "mature": None if row.mature_share is None else f"{row.mature_share:.0%}",
        "verdict": _verdict(row),
    }


def _interval(low: float | None, high: float | None) -> str | None:
    return None if low is None else f"[{shown(low)}, {shown(high)}]"


def _verdict(row: Result) -> str:
    if row.arm == row.control:
        return "control"
    if row.difference is None:
        return (row.reason or "").replace("_", " ")
    return "no difference shown yet" if row.direction is Direction.UNDECIDED else row.direction.value
