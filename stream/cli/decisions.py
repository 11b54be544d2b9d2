"""`liftstream decisions`: what was decided, and why."""

from pathlib import Path

import click

from stream.cli import SUMMARIES, options
from stream.cli.printing import note, print_json, print_table
from stream.cli.reading import opened
from stream.sink.queries import decisions

COLUMNS = ("decided_at", "id", "what", "reason", "by")


@click.command("decisions", short_help=SUMMARIES["decisions"])
@options.into
@options.as_json
@click.option("--experiment", help="Only this experiment.")
def command(folder: Path | None, as_json: bool, experiment: str | None) -> None:
    """Show what was decided, newest first: guardrails that fired, promotions proposed and made, and what was undone.

    The same rows, with all figures, are in the view decisions.
    """
    with opened(folder) as db:
        rows = decisions(db, experiment)
    if as_json:
        return print_json(rows)
    if not rows:
        return note("Nothing has been decided yet.")
    return print_table([row | {"what": _what(row), "by": _by(row)} for row in rows], COLUMNS)


def _what(row: dict[str, object]) -> str:
    """`switched to control`, `dry run: would switch to control`, `alert`, `promoted`; `undone` where it was."""
    if row["undone_at"] is not None:
        return f"undone by {row['undone_by']}: {row['undone_why']}"
    if row["kind"] != "guardrail":
        return str(row["kind"]).replace("_", " ")
    done = "alert" if row["fallback"] is None else f"switched to {row['fallback']}"
    return done if row["armed"] else f"dry run: {done.replace('switched', 'would have switched')}"


def _by(row: dict[str, object]) -> str:
    return f"{row['decided_by']}: {row['why']}" if row["why"] else str(row["decided_by"])
