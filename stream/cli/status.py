"""`liftstream status`: how far the worker is and how old the numbers are."""

from pathlib import Path

import click

from stream.cli import SUMMARIES, options
from stream.cli.printing import note, print_json, print_table, shown
from stream.cli.reading import opened
from stream.sink.queries import status, workers


@click.command("status", short_help=SUMMARIES["status"])
@options.into
@options.as_json
@click.option("--workers", "of_workers", is_flag=True, help="Show what each worker says of itself instead.")
def command(folder: Path | None, as_json: bool, of_workers: bool) -> None:
    """Show each partition's watermark, lag, latency from event to ClickHouse, and last step.

    The same rows are in the view pipeline_status, and those of --workers in the view workers. What a worker says
    against itself, as far as it reached ClickHouse, is shown in either case.
    """
    with opened(folder) as db:
        said = workers(db)
        rows = said if of_workers else status(db)
    for worker in said:
        for sentence in filter(None, (worker["reasons"], worker["warnings"])):
            note(f"{worker['worker']} at {shown(worker['heard_at'])}: {sentence}")
    if as_json:
        return print_json(rows)
    if not rows:
        return note("No worker has written its status yet.")
    return print_table(rows, rows[0])
