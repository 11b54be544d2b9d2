"""`liftstream sql`: one read-only query."""

from pathlib import Path

import click

from stream.cli import SUMMARIES, options
from stream.cli.printing import print_json, print_table
from stream.cli.reading import opened
from stream.sink.queries import sql


@click.command("sql", short_help=SUMMARIES["sql"])
@click.argument("query")
@options.into
@options.as_json
def command(query: str, folder: Path | None, as_json: bool) -> None:
    """Run one read-only QUERY: SELECT, WITH, SHOW, DESCRIBE, EXPLAIN or EXISTS.

    The views: arm_totals, arm_rates, arm_rolling, experiment_results, experiment_health, pipeline_status, ledger,
    dead_letters and more; SHOW TABLES, or docs/sql.md, has them all.
    """
    with opened(folder) as db:
        answer = sql(db, query)
    if as_json:
        return print_json(answer.dicts())
    return print_table(answer.dicts(), answer.columns)
