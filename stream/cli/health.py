"""`liftstream health`: whether experiments can be trusted."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from stream.cli import SUMMARIES, options
from stream.cli.printing import note, print_json, print_table
from stream.cli.reading import opened
from stream.cli.standing import standings_of
from stream.results.rows import ArmHealth, ExperimentHealth, Verdict
from stream.sink.as_json import health_row
from stream.sink.queries import unknown_troubles

Row = dict[str, Any]

COLUMNS = ("experiment", "verdict", "reason")
ARMS = (
    "arm", "users", "planned", "share", "mixed", "late", "rejected", "duplicate", "orphaned", "pre_value",
)  # fmt: skip


@click.command("health", short_help=SUMMARIES["health"])
@options.into
@options.as_json
@options.experiment_files
@click.option("--experiment", help="Only this experiment.")
@click.pass_context
def command(
    ctx: click.Context, folder: Path | None, as_json: bool, files: Path | None, experiment: str | None
) -> None:
    """Show whether the numbers of experiments can be trusted, and why not.

    Checked are the sample ratio (also of every slice), users seen in several arms, late, rejected, duplicate and
    orphaned events by arm, and differences from before the experiment. The exit code is 1 when one is broken.
    """
    with opened(folder) as db:
        found = [standing.health for standing in standings_of(db, files, experiment)]
        unknown = {name: count for name, count in unknown_troubles(db).items() if count}
    if as_json:
        print_json([health_row(one) for one in found])
    elif not found:
        note("There are no experiments yet.")
    else:
        _print(found)
        if unknown:
            counts = ", ".join(f"{count:,} {name}" for name, count in unknown.items())
            note(f"Of users who were in no experiment then: {counts}.")
    ctx.exit(1 if any(one.verdict is Verdict.BROKEN for one in found) else 0)


def _print(found: list[ExperimentHealth]) -> None:
    print_table([asdict(one) for one in found], COLUMNS)
    for one in found:
        print_table([_arm_row(arm) for arm in one.arms], ARMS, title=f"\n{one.experiment}")


def _arm_row(arm: ArmHealth) -> Row:
    return {
        "arm": arm.arm,
        "users": arm.users,
        "planned": _percent(arm.planned_share),
        "share": _percent(arm.share),
        "mixed": _percent(arm.mixed_share),
        "late": _percent(arm.late_share),
        "rejected": _percent(arm.rejected_share),
        "duplicate": _percent(arm.duplicate_share),
        "orphaned": _percent(arm.orphaned_share),
        "pre_value": arm.pre_value,
    }


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.2%}"
