"""`liftstream results`: the cumulative totals of every experiment and arm."""

from pathlib import Path

import click

from stream.cli import SUMMARIES, options
from stream.cli.printing import note, print_json, print_table
from stream.cli.reading import opened
from stream.errors import ConfigurationError
from stream.sink.queries import RESULT_COLUMNS, experiments, results


@click.command("results", short_help=SUMMARIES["results"])
@options.into
@options.as_json
@click.option("--experiment", help="Only this experiment.")
@click.option("--slice", "slice_name", help="Only this slice: all, country=DE, ...")
def command(folder: Path | None, as_json: bool, experiment: str | None, slice_name: str | None) -> None:
    """Show the totals of every experiment, arm and slice, from its start until now.

    CTR is clicked_impressions / impressions, conversion_rate converted_impressions / impressions; money is in minor
    units (cents). The same rows are in the view arm_totals.
    """
    with opened(folder) as db:
        rows = [row for row in results(db, experiment) if slice_name in (None, row["slice"])]
        if experiment is not None and not rows:
            _refuse_unknown(experiment, experiments(db))
    if as_json:
        return print_json(rows)
    if not rows:
        return note("There are no results yet.")
    return print_table(rows, RESULT_COLUMNS)


def _refuse_unknown(experiment: str, known: list[str]) -> None:
    if known and experiment not in known:
        raise ConfigurationError(
            f"There are no results of an experiment {experiment!r}: known are {', '.join(known)}."
        )
