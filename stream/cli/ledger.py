"""`liftstream ledger`: every consumed event has exactly one outcome."""

from pathlib import Path

import click

from stream.cli import SUMMARIES, options
from stream.cli.printing import note, print_json, print_table
from stream.cli.reading import opened
from stream.sink.queries import ledger, ledger_imbalances


@click.command("ledger", short_help=SUMMARIES["ledger"])
@options.into
@options.as_json
@click.option("--check", is_flag=True, help="Exit with code 1 unless every event is accounted for.")
@click.pass_context
def command(ctx: click.Context, folder: Path | None, as_json: bool, check: bool) -> None:
    """Show what became of every event, by topic, partition and hour in which Kafka received it.

    consumed = counted + duplicate + late + outside + rejected; of the counted interactions each is attributed, waiting
    or orphaned. With --check only rows that do not add up are shown. The same rows are in the view ledger.
    """
    with opened(folder) as db:
        rows = ledger_imbalances(db) if check else ledger(db)
        consumed = sum(row["consumed"] for row in (ledger(db) if check else rows))
    if as_json:
        print_json(rows)
    elif rows:
        print_table(rows, rows[0])
    if check:
        note(f"{len(rows)} rows do not add up." if rows else f"All {consumed:,} events are accounted for.")
        ctx.exit(1 if rows else 0)
