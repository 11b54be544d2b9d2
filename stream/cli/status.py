"""`liftstream status`: how far the worker is and how old the numbers are."""

from pathlib import Path

import click

from stream.cli import SUMMARIES, options
from stream.cli.printing import note, print_json, print_table
from stream.cli.reading import opened
from stream.sink.queries import status


@click.command("status", short_help=SUMMARIES["status"])
@options.into
@options.as_json
def command(folder: Path | None, as_json: bool) -> None:
    """Show each partition's watermark, lag, latency from event to ClickHouse, and last step.

    The same rows are in the view pipeline_status.
    """
    with opened(folder) as db:
        rows = status(db)
    if as_json:
        return print_json(rows)
    if not rows:
        return note("No worker has written its status yet.")
    return print_table(rows, rows[0])
