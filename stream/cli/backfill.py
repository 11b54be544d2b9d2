"""`liftstream backfill`: count the events of files, without a broker."""

from pathlib import Path

import click

from stream.backfill import backfill
from stream.cli import SUMMARIES, options
from stream.cli.bad_records import BadRecords
from stream.cli.printing import note, progress
from stream.contracts.topics import Topic
from stream.engine import kernel_cache
from stream.settings import Settings


def _files(topic: Topic) -> options.Decorator:
    return click.option(
        f"--{topic.word}", multiple=True, type=options.FILE, metavar="FILE",
        help=f"{topic.word.capitalize()}: .jsonl (also .gz), .avro or .parquet; may be given several times.",
    )  # fmt: skip


@click.command("backfill", short_help=SUMMARIES["backfill"])
@_files(Topic.IMPRESSIONS)
@_files(Topic.INTERACTIONS)
@_files(Topic.ASSIGNMENTS)
@click.option(
    "--into", "folder", required=True, type=options.FOLDER, metavar="DIR", help="Where the database is made."
)
@click.option("--experiments", type=options.FOLDER, metavar="DIR", help="Folder of experiment files.")
@options.rejects
@click.pass_context
def command(
    ctx: click.Context,
    impressions: tuple[Path, ...],
    interactions: tuple[Path, ...],
    assignments: tuple[Path, ...],
    folder: Path,
    experiments: Path | None,
    rejects: Path | None,
) -> None:
    """Count the events of files into an embedded database in DIR, by the same rules as the worker.

    The files are merged by event time, so nothing is late. Records that break the contract are shown as
    FILE:LINE: FIELD: RULE and not counted; the others are. The exit code is then 1. A second run into the same DIR
    continues.
    """
    files = {Topic.IMPRESSIONS: impressions, Topic.INTERACTIONS: interactions, Topic.ASSIGNMENTS: assignments}
    if not any(files.values()):
        raise click.UsageError("Name at least one file: --impressions, --interactions or --assignments.")
    if not kernel_cache().exists():
        note("Preparing the kernels; the first run on a machine takes up to a minute.")
    settings = Settings.load(**({"experiments": experiments} if experiments else {}))
    with BadRecords(rejects) as bad, progress() as bar:
        task = bar.add_task("Counting", total=None)
        report = backfill(
            files,
            into=folder,
            definitions=settings.definitions(),
            rules=settings.rules(),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
        for record in report.bad:
            bad.add(record)
    counted = ", ".join(f"{rows:,} {topic.word}" for topic, rows in report.rows_by_topic.items())
    note(f"Read {counted}; {bad.count:,} records were not usable. See: liftstream results --into {folder}")
    if report.late:
        note(
            f"{report.late:,} events were late: {folder} had already come further than allowed_lateness beyond them. "
            "They are in the ledger, not in the numbers; give older files first, or all files in one run."
        )
    ctx.exit(1 if bad.count else 0)
